"""Turns the rows of a suite's data sets into prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from string import ascii_uppercase
from typing import Any

from agent.episode import text_digest
from evaluation.errors import PromptError
from evaluation.prompts.schema import Kind
from evaluation.prompts.suites.preset import GPQA_OPTIONS, Source, Suite

_ID_CHARS = 16
_ASK_FOR_LETTER = "Answer with the letter of the right option."

Row = dict[str, Any]


def to_prompts(suite: Suite, source: Source, rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Converts the rows of one source to the fields of `Prompt`, or of `Conversation` for the form `turns`.

    Raises:
        PromptError: a row's value does not have the form that the preset names.
    """
    prompts: list[Row] = []
    repeated: Counter[str] = Counter()
    for row in rows:
        kind = _kind(source, row)
        if kind is None:
            continue
        for content, suffix in _contents(suite, source, row):
            text = content.get("prompt") or "\n".join(content["user_turns"])
            if not text.strip():
                continue
            own = str(row[source.id]) if source.id else text_digest(text)[:_ID_CHARS]
            repeated[own + suffix] += 1
            again = repeated[own + suffix]
            id = f"{suite.name}/{own}{suffix}" + (f"-{again}" if again > 1 else "")
            extra = {"suite": suite.name, "source": source.data, "licence": suite.licence}
            prompts.append({"id": id, **content, "kind": kind, **_category(source, row), **extra})
    return prompts


def _kind(source: Source, row: Mapping[str, Any]) -> Kind | None:
    if isinstance(source.kind, str):
        return source.kind
    return source.kind.get(str(row[source.kind_column]))


def _category(source: Source, row: Mapping[str, Any]) -> Row:
    value = row[source.category] if source.category else None
    return {} if value is None else {"category": str(value)}


def _contents(suite: Suite, source: Source, row: Mapping[str, Any]) -> Iterator[tuple[Row, str]]:
    """Yields the prompts of a row, each with a suffix for the id that distinguishes it."""
    match source.form:
        case "text":
            answer = _reference(source, row)
            yield {"prompt": str(row[source.prompt]), **({} if answer is None else {"answer": answer})}, ""
        case "languages":
            for language in source.prompt.split(","):
                if row[language]:
                    yield {"prompt": str(row[language]), "lang": language}, f"-{language}"
        case "choices":
            labels, texts = _options(suite, source, row[source.choices])
            answer = str(row[source.answer]).strip()
            letter = ascii_uppercase[labels.index(answer)] if answer in labels else answer
            yield _question(str(row[source.prompt]), texts, letter), ""
        case "gpqa":
            question, options = str(row[source.prompt]), [str(row[name]).strip() for name in GPQA_OPTIONS]
            # Drawn from the text, so that every run asks the same question.
            order = sorted(options, key=lambda option: text_digest(f"{question}\n{option}"))
            yield _question(question, order, ascii_uppercase[order.index(options[0])]), ""
        case "turns":
            turns = row[source.prompt]
            if not isinstance(turns, list | tuple) or not all(isinstance(turn, str) for turn in turns):
                raise PromptError(
                    f"suite {suite.name}: '{source.prompt}' of {source.label} is not a list of texts, so its "
                    "layout has changed: report it, or pass the prompts with --prompts"
                )
            yield {"user_turns": [turn for turn in turns if turn.strip()], "attack": suite.name}, ""


def _reference(source: Source, row: Mapping[str, Any]) -> str | None:
    if not source.answer or row[source.answer] is None:
        return None
    answer = str(row[source.answer])
    return answer.rpartition(source.answer_after)[2].strip() if source.answer_after else answer


def _options(suite: Suite, source: Source, value: Any) -> tuple[list[str], list[str]]:
    """Returns the labels and the texts of a question's options."""
    if isinstance(value, Mapping) and {"label", "text"} <= value.keys():
        return [str(label) for label in value["label"]], [str(text) for text in value["text"]]
    if isinstance(value, list | tuple):
        return list(ascii_uppercase[: len(value)]), [str(text) for text in value]
    raise PromptError(
        f"suite {suite.name}: '{source.choices}' of {source.label} holds no options, so its layout has "
        "changed: report it, or pass the prompts with --prompts"
    )


def _question(question: str, options: Sequence[str], letter: str) -> Row:
    lines = [f"{label}. {text}" for label, text in zip(ascii_uppercase, options, strict=False)]
    return {"prompt": "\n".join([question.strip(), "", *lines, "", _ASK_FOR_LETTER]), "answer": letter}
