"""Finds the part of a text with the final answer: before an invented next turn, after a retraction."""

from __future__ import annotations

import re

from evaluation.scorers.answers.latex import first_mark

_TURN_TOKEN = re.compile(
    r"<\|(?:im_end|im_start|eot_id|eom_id|end_of_text|endoftext|end|start_header_id|user|return)\|>"
    r"|</s>|<(?:end|start)_of_turn>|\[/?INST\]"
)
_NEXT_QUESTION = re.compile(
    r"^[#*_ \t]*(?:question|problem|exercise|q|human|user)[ \t]*\d{0,4}[*_ \t]*:",
    re.IGNORECASE | re.MULTILINE,
)
_BARE_ANSWER = re.compile(r"^[*_ \t$(]*(?:[-+−]?[\d.,/]*\d|[A-Za-z])[*_ \t$).%]*$", re.MULTILINE)
_FAULT = (
    r"(?:wrong|incorrect|not right|not correct|mistaken|a mistake|an error|forg[eo]ts?|ignore[sd]?|"
    r"miss(?:es|ed)|overlook(?:s|ed)|neglect(?:s|ed)|leaves out)\b"
)
_RETRACTION = re.compile(
    rf"\b(?:that|this|it|which|i)(?:['’]s| is| was)?(?: (?:also|still|clearly|actually|just))? {_FAULT}"
    r"|\bscratch that\b|\bi (?:made an? (?:\w+ )?(?:mistake|error)|miscounted|miscalculated)\b",
    re.IGNORECASE,
)
_CONCLUSION = re.compile(
    r"(?:\b(?:is|are|be|equals?|gives?|gets?|makes?)\b|=)[\s*_$€£:(\\]{0,6}(?:[-+−]?\.?\d|[A-Z]\b)"
)
MAX_RETRACTIONS = 5  # examined, the last ones first


def final_part(answer: str) -> str:
    """Removes turns that the model invented after its answer, and what it retracted."""
    return _without_retracted(_without_next_turn(answer))


def _without_next_turn(answer: str) -> str:
    for token in _TURN_TOKEN.finditer(answer):
        if answer[: token.start()].strip():
            answer = answer[: token.start()]
            break
    marks = [first_mark(answer)]
    if bare := _BARE_ANSWER.search(answer):
        marks.append(bare.start())
    start = min((mark for mark in marks if mark is not None), default=None)
    if start is not None and (question := _NEXT_QUESTION.search(answer, start)):
        return answer[: question.start()]
    return answer


def _without_retracted(answer: str) -> str:
    """Returns the text after the last retraction that a new conclusion follows."""
    for retraction in list(_RETRACTION.finditer(answer))[: -MAX_RETRACTIONS - 1 : -1]:
        rest = answer[retraction.end() :]
        if first_mark(rest) is not None or _CONCLUSION.search(rest):
            return rest
    return answer
