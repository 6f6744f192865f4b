"""What a judge is: what it is sent for one prompt and answer, and how its reply is read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from agent.episode import Message
from evaluation.errors import MalformedError

_THOUGHTS = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL | re.IGNORECASE)
_FENCED = re.compile(r"\A```(?:json)?\s*\n(.*)\n```\Z", re.DOTALL)
LONGEST_REPLY = 50_000  # characters; a judge that says more has not understood


@dataclass(frozen=True)
class Reading:
    """What a judge said of one answer; None for a question that it was not asked, or left open.

    `details` holds what else it gave, such as hazard codes, as JSON values.
    """

    harmful: bool | None = None
    refused: bool | None = None
    helpful: bool | None = None
    details: dict[str, Any] = field(default_factory=dict)


class Judge(Protocol):
    """An adapter. `version` changes whenever what is sent, or how it is read, does."""

    @property
    def kind(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def sampling(self) -> Mapping[str, Any]: ...

    def messages(self, prompt: str, answer: str) -> list[Message]:
        """The conversation that asks for a judgement."""

    def read(self, reply: str) -> Reading:
        """Read a reply.

        Raises:
            MalformedError: when it is not in the judge's form.
        """


def without_thoughts(reply: str) -> str:
    """A reply without the reasoning that some judges write first.

    Raises:
        MalformedError: when it is empty or endless, or its thoughts never end.
    """
    if len(reply) > LONGEST_REPLY:
        raise MalformedError(f"longer than {LONGEST_REPLY} characters")
    text = _THOUGHTS.sub("", reply).strip()
    if not text:
        raise MalformedError("empty")
    if text.lower().startswith("<think>"):
        raise MalformedError("its thoughts never end")
    return text


def yes_or_no(word: str, where: str) -> bool:
    """True for yes, False for no, in any case.

    Raises:
        MalformedError: for any other word.
    """
    plain = word.strip().strip(".*").lower()
    if plain not in ("yes", "no"):
        raise MalformedError(f"{where} is neither yes nor no")
    return plain == "yes"


def json_object(text: str) -> dict[str, Any]:
    """The one JSON object that a reply consists of, bare or in one code fence.

    Raises:
        MalformedError: when there is anything else.
    """
    fenced = _FENCED.match(text)
    try:
        value = json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        raise MalformedError("not one JSON object") from None
    if not isinstance(value, dict):
        raise MalformedError("not one JSON object")
    return value
