"""The interface of a judge's adapter, and helpers that parse replies."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from agent.episode import Message
from agent.replies import find_thoughts
from evaluation.errors import MalformedError

_FENCED = re.compile(r"\A```(?:json)?\s*\n(.*)\n```\Z", re.DOTALL)
MAX_REPLY_CHARS = 50_000  # a judge that writes more did not understand the question


@dataclass(frozen=True)
class Reading:
    """A judge's verdict on one answer; None for a question that it was not asked or did not answer.

    `details` contains the judge's other output, such as hazard codes, as JSON values.
    """

    harmful: bool | None = None
    refused: bool | None = None
    helpful: bool | None = None
    details: dict[str, Any] = field(default_factory=dict)


class Judge(Protocol):
    """Adapter of a judge. `version` changes whenever the request or the parsing of replies changes."""

    @property
    def kind(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def sampling(self) -> Mapping[str, Any]: ...

    def messages(self, prompt: str, answer: str) -> list[Message]:
        """Returns the conversation that asks for a verdict."""

    def read(self, reply: str) -> Reading:
        """Parses a reply.

        Raises:
            MalformedError: the reply is not in the judge's format.
        """


def without_reasoning(reply: str) -> str:
    """Removes the reasoning that some judges write first.

    Raises:
        MalformedError: the reply is empty or too long, or its reasoning is not closed.
    """
    if len(reply) > MAX_REPLY_CHARS:
        raise MalformedError(f"longer than {MAX_REPLY_CHARS} characters")
    thoughts = find_thoughts(reply)
    if thoughts.unfinished and reply.strip():
        raise MalformedError("its reasoning never ends")
    text = (reply if thoughts.misplaced else thoughts.outside(reply)).strip()
    if not text:
        raise MalformedError("empty")
    return text


def yes_or_no(word: str, subject: str) -> bool:
    """Parses `yes` as True and `no` as False, ignoring case.

    Args:
        word: the text to parse.
        subject: name of the question in the error message.

    Raises:
        MalformedError: any other word.
    """
    plain = word.strip().strip(".*").lower()
    if plain not in ("yes", "no"):
        raise MalformedError(f"{subject} is neither yes nor no")
    return plain == "yes"


def json_object(text: str) -> dict[str, Any]:
    """Parses a reply that consists of one JSON object, bare or in one code fence.

    Raises:
        MalformedError: the reply contains anything else, or an object in it has two entries of one name: such
            a judge may have contradicted itself, and a parser would silently keep the last entry.
    """
    fenced = _FENCED.match(text)
    try:
        value = json.loads(fenced[1] if fenced else text, object_pairs_hook=_unique_entries)
    except (ValueError, RecursionError):
        raise MalformedError("not one JSON object") from None
    if not isinstance(value, dict):
        raise MalformedError("not one JSON object")
    return value


def _unique_entries(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for name, value in pairs:
        if name in entries:
            raise MalformedError(f"two entries for '{name[:40]}'")
        entries[name] = value
    return entries
