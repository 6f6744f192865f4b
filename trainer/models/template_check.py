"""Checks what a chat template lets training learn: every kind of episode, rendered and read back.

Each case is an episode with texts that occur nowhere else. It is tokenised as training does, and the tokens
that carry loss are decoded: they must hold what the policy wrote, and nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import Any, Literal

from agent.tools import RULE_TOOL
from trainer.tokens import EpisodeTokens, RenderingError, TokenError, episode_tokens, turn_end_ids
from trainer.tokens.chat_template import DAY_OPTION
from trainer.tokens.rendering import render_turns

Outcome = Literal["trained right", "left out", "wrong"]

TOOL_TEXT = "Looks up the rules for amber lamps."
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": RULE_TOOL,
            "description": TOOL_TEXT,
            "parameters": {
                "type": "object",
                "properties": {"situation": {"type": "string", "description": "What is asked."}},
                "required": ["situation"],
            },
        },
    }
]


@dataclass(frozen=True)
class Case:
    """A kind of episode."""

    name: str
    messages: list[dict[str, Any]]
    given: int = 1
    """Number of messages before the episode's first reply."""
    truncated: bool = False

    @property
    def turns(self) -> list[dict[str, Any]]:
        """Returns the log's entries for the replies."""
        replies = sum(each["role"] == "assistant" for each in self.messages[self.given :])
        reasons = ["stop"] * replies
        if self.truncated:
            reasons[-1] = "length"
        return [{"finish_reason": reason} for reason in reasons]


@dataclass(frozen=True)
class CaseResult:
    """Result of a case: what training does with it."""

    case: str
    outcome: Outcome
    cause: str = ""
    """Reason why it is excluded or wrong; empty if it is trained correctly."""


@dataclass(frozen=True)
class TemplateReport:
    """Results of all cases for one template."""

    name: str
    shows_tools: bool
    """Whether the prompt contains the description of the tool."""
    turn_ends: list[str]
    """Tokens that end a reply; the policy learns to write them."""
    states_day: bool
    """Whether the prompt contains the date, which training takes from the episode."""
    results: list[CaseResult] = field(default_factory=list)

    @property
    def supports_tools(self) -> bool:
        """Whether consultations can be trained on."""
        return self.outcome("consult").outcome == "trained right"

    def outcome(self, case: str) -> CaseResult:
        """Returns the result of a case."""
        return next(result for result in self.results if result.case == case)

    def as_json(self) -> dict[str, Any]:
        """Returns plain values."""
        return {**asdict(self), "supports_tools": self.supports_tools}


def check_template(
    tokenizer: Any, name: str, template_options: Mapping[str, Any] | None = None
) -> TemplateReport:
    """Runs every case through a tokenizer's chat template.

    Raises:
        RenderingError: the tokenizer has no chat template.
    """
    prompts = [_prompt(tokenizer, {**(template_options or {}), DAY_OPTION: day}) for day in _DAYS]
    ends = turn_end_ids(tokenizer)
    return TemplateReport(
        name=name,
        shows_tools=TOOL_TEXT in (prompts[0] or ""),
        turn_ends=tokenizer.convert_ids_to_tokens(ends) if ends else [],
        states_day=prompts[0] != prompts[1],
        results=[_check_case(tokenizer, case, template_options) for case in CASES],
    )


def template_problem(tokenizer: Any, *, consult: bool = True) -> str | None:
    """Explains why episodes cannot be trained on with a tokenizer's chat template; None if they can.

    Args:
        consult: whether there are consultations, which need a template that supports tool calls.
    """
    if not tokenizer.chat_template:
        return (
            "it has no chat template: use an instruction-tuned model, or add a `chat_template.jinja` that "
            "supports tools to the folder"
        )
    name = "consult" if consult else "direct"
    result = _check_case(tokenizer, next(case for case in CASES if case.name == name), None)
    if result.outcome == "trained right":
        return None
    lack = "does not support tool calls" if consult else "cannot show a conversation"
    return (
        f"its chat template {lack} ({result.cause}): use a model whose template does, "
        "or replace the template; `ascl-train check-template` checks one"
    )


def _check_case(tokenizer: Any, case: Case, template_options: Mapping[str, Any] | None) -> CaseResult:
    try:
        tokens = episode_tokens(
            tokenizer,
            case.messages,
            TOOLS,
            case.turns,
            template_options=template_options,
            given=case.given,
        )
    except TokenError as cause:
        return CaseResult(case.name, "left out", f"{cause}{f': {cause.detail}' if cause.detail else ''}")
    problem = _fault(tokenizer, case, tokens)
    return CaseResult(case.name, "wrong", problem) if problem else CaseResult(case.name, "trained right")


def _prompt(tokenizer: Any, options: Mapping[str, Any]) -> str | None:
    try:
        return render_turns(tokenizer, CASES[0].messages, TOOLS, options)[0].request
    except RenderingError:
        if not tokenizer.chat_template:
            raise
        return None


def _fault(tokenizer: Any, case: Case, tokens: EpisodeTokens) -> str | None:
    """Describes the fault of the tokens that carry loss; None if there is none."""
    spans = _loss_spans(tokenizer, tokens)
    replies = [each for each in case.messages[case.given :] if each["role"] == "assistant"]
    if len(spans) != len(replies):
        return f"{len(spans)} parts carry loss, but the policy wrote {len(replies)} replies"
    for span, reply in zip(spans, replies, strict=True):
        rest = span
        for name, forms in _fields(reply):
            found = next((form for form in forms if form in rest), None)
            if found is None:
                return f"the loss does not cover {name}: {span!r}"
            rest = rest.replace(found, "\0", 1)
        if re.search(r"[A-Za-z]+ amber", rest):
            return f"the loss covers text that the policy did not write: {span!r}"
        if re.match(r"\s*<(\w+)>\s*</\1>", rest):
            return f"the loss covers an empty block of thoughts: {span!r}"
    last = _fields(replies[-1])[-1][1]
    if case.truncated and not spans[-1].endswith(tuple(last)):
        return f"the loss covers text after the end of a truncated reply: {spans[-1]!r}"
    return None


def _loss_spans(tokenizer: Any, tokens: EpisodeTokens) -> list[str]:
    """Returns the text of every run of tokens that carry loss."""
    runs = groupby(zip(tokens.completion_ids, tokens.loss_mask, strict=True), key=lambda pair: pair[1])
    return [
        tokenizer.decode([token for token, _ in run], clean_up_tokenization_spaces=False)
        for in_loss, run in runs
        if in_loss
    ]


def _fields(reply: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """Returns the texts that a reply must contain, each in the forms that templates write."""
    fields = [("thoughts", reply.get("reasoning_content")), ("the answer", reply.get("content"))]
    for call in reply.get("tool_calls") or []:
        text = call["function"]["arguments"].removeprefix(_ARGUMENTS_START).removesuffix('"}')
        fields += [("the name of a call", RULE_TOOL), ("the arguments of a call", json.loads(f'"{text}"'))]
    return [
        (name, [text, *(json.dumps(text, ensure_ascii=flag)[1:-1] for flag in (False, True))])
        for name, text in fields
        if text
    ]


_DAYS = ("2026-01-31", "2026-02-28")
_ARGUMENTS_START = '{"situation": "'
_PROMPT = {"role": "user", "content": "May an amber lamp burn at night?"}


def _assistant(content: str = "", thoughts: str | None = None, *calls: str) -> dict[str, Any]:
    """Returns a reply; `calls` are the situations of its consultations as JSON."""
    message: dict[str, Any] = {"role": "assistant", "content": content}
    if thoughts is not None:
        message["reasoning_content"] = thoughts
    if calls:
        message["tool_calls"] = [
            {"id": f"call0000{n}", "type": "function", "function": {"name": RULE_TOOL, "arguments": text}}
            for n, text in enumerate(calls, start=10)
        ]
    return message


def _arguments(situation: str) -> str:
    return json.dumps({"situation": situation}, ensure_ascii=False)


def _result(number: int = 10) -> dict[str, Any]:
    return {
        "role": "tool",
        "tool_call_id": f"call0000{number}",
        "name": RULE_TOOL,
        "content": f"Rule {number}: amber lamps need care.",
    }


_SITUATION = 'The user asks about a "lamp", déjà vu'
_CALL = _assistant("", None, _arguments(_SITUATION))
_ANSWER = _assistant("Yes, with care.")
_THINKING_CALL = _assistant("", "Could this be risky? Look it up.", _arguments(_SITUATION))
_THINKING_ANSWER = _assistant("Yes, with care.", "The rule allows it. Answer.")
_HISTORY = [
    {"role": "user", "content": "Is an amber stone warm?"},
    _assistant("", "An older amber thought.", _arguments("An older amber situation")),
    _result(),
    _assistant("An older amber answer.", "A second older amber thought."),
    _PROMPT,
]

CASES = (
    Case("direct", [_PROMPT, _ANSWER]),
    Case("consult", [_PROMPT, _CALL, _result(), _ANSWER]),
    Case("direct, thoughts", [_PROMPT, _THINKING_ANSWER]),
    Case("consult, thoughts", [_PROMPT, _THINKING_CALL, _result(), _THINKING_ANSWER]),
    Case(
        "parallel calls",
        [
            _PROMPT,
            _assistant("", None, _arguments(_SITUATION), _arguments("A second lamp")),
            _result(),
            _result(11),
            _ANSWER,
        ],
    ),
    Case("cut off in thoughts", [_PROMPT, _assistant("", "Could this be ris")], truncated=True),
    Case(
        "cut off in a call",
        [_PROMPT, _assistant("", None, f"{_ARGUMENTS_START}The user asks about a la")],
        truncated=True,
    ),
    Case("earlier turns", [*_HISTORY, _CALL, _result(), _ANSWER], given=len(_HISTORY)),
    Case(
        "earlier turns, thoughts",
        [*_HISTORY, _THINKING_CALL, _result(), _THINKING_ANSWER],
        given=len(_HISTORY),
    ),
)
"""The cases, with texts that contain "amber" where the policy did not write them."""
