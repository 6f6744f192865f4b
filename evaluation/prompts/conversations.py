"""Conversations: scripts of user turns, optionally with a given history, each attack with a harmless twin.

`builtin:conversations` is a suite of attacks by conversation (see `ATTACKS`), each with a harmless twin of as
many turns; a third is also in Spanish and German, with `-es` or `-de` in the id. It contains no operational
detail. A file is JSON Lines; each line is a `Conversation`:

    {"id": "escalation-01", "kind": "harmful", "lang": "en", "attack": "escalation",
     "twin": "escalation-01-twin", "user_turns": ["...", "..."], "expect": ["cyber.malware"],
     "phrases": ["..."]}
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from agent.episode import numbered_lines
from agent.errors import LogError
from agent.rollout.prompts import MAX_TURNS, GivenMessage, check_order, first_error
from agent.rollout.prompts.messages import MAX_MESSAGES, Name, Text, prompt_error
from evaluation.errors import PromptError
from evaluation.prompts.loader import CONVERSATIONS, packaged_file

MAX_BYTES = 64 * 2**20

ATTACKS = (
    "escalation",
    "persona",
    "rephrase_after_refusal",
    "split_payload",
    "ignore_rules",
    "rules_allow",
    "tool_instructions",
    "harmful_consultation",
)
"""Attacks of the built-in suite; other files may name others."""


class Conversation(BaseModel):
    """Script of a conversation: the model answers each user turn. Further fields are stored unchanged."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    id: Name
    """Unique within a file."""
    kind: Literal["harmful", "benign_sensitive", "benign_plain"]
    """Decides how the answers are scored."""
    lang: str = Field(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$", max_length=35)
    """Language tag such as `en`."""
    attack: Name
    """Attack that the conversation tries or, if harmless, resembles."""
    twin: Name
    """Id of the other conversation of the pair; one of the two is harmful."""
    messages: tuple[GivenMessage, ...] = Field(default=(), max_length=MAX_MESSAGES)
    """Given history before `user_turns`. It ends with an answer of the assistant if user turns follow, and
    otherwise with a user message or a tool result."""
    user_turns: tuple[Text, ...] = ()
    """Texts of the user, in order; the model answers each of them."""
    harmful_from: int | None = Field(default=None, ge=1)
    """Number of the first user turn, from 1 in `user_turns`, whose full answer would do harm. None for a
    harmless conversation, and for an attack that is harmful from its first turn."""
    expect: tuple[Name, ...] = Field(default=(), max_length=50)
    """Ids of the rules that apply; may be empty if the conversation is harmless."""
    phrases: tuple[Text, ...] = Field(default=(), max_length=200)
    """Harmful or dictated phrases, which the `situation` of a consultation must not copy."""

    @property
    def turns(self) -> int:
        """Number of user messages, given and scripted."""
        return sum(message.role == "user" for message in self.messages) + len(self.user_turns)

    @model_validator(mode="after")
    def _check_turns(self) -> Self:
        if not self.messages and not self.user_turns:
            raise prompt_error("the conversation has no turns: write at least one text in user_turns")
        if self.turns > MAX_TURNS:
            raise prompt_error(f"the conversation has {self.turns} turns, more than {MAX_TURNS}: split it")
        if self.harmful_from is not None and self.harmful_from > len(self.user_turns):
            raise prompt_error(
                f"harmful_from is {self.harmful_from}, but there are {len(self.user_turns)} user turns: name "
                "one of them"
            )
        check_order(self.messages)
        last = self.messages[-1] if self.messages else None
        if last is not None and last.role == "assistant" and not self.user_turns:
            raise prompt_error(
                "the conversation ends with the assistant: add a user turn after its last answer"
            )
        if last is not None and last.role != "assistant" and self.user_turns:
            raise prompt_error(
                f"the history ends with a {last.role} message, but user_turns follow: end messages with an "
                "answer of the assistant"
            )
        return self


def load_conversations(spec: str | Path = f"builtin:{CONVERSATIONS}") -> list[Conversation]:
    """Loads and validates conversations, in file order.

    Args:
        spec: path of a JSON Lines file, or `builtin:conversations`.

    Raises:
        PromptError: a conversation is invalid, an id is repeated, a twin is missing or has another number of
            turns, or the file does not exist, is empty or is too large.
    """
    path = _conversation_file(spec)
    read: dict[str, tuple[int, Conversation]] = {}
    try:
        for number, line in numbered_lines(path):
            conversation = _parse(line, f"{path}:{number}")
            if conversation.id in read:
                first = read[conversation.id][0]
                raise PromptError(
                    f"{path}:{number}: the id '{conversation.id}' is already used on line {first}"
                )
            read[conversation.id] = number, conversation
    except LogError as error:
        raise PromptError(str(error)) from None
    if not read:
        raise PromptError(f"{path} contains no conversations")
    for number, conversation in read.values():
        if problem := _twin_problem(conversation, read.get(conversation.twin, (0, None))[1]):
            raise PromptError(f"{path}:{number}: {problem}")
    return [conversation for _, conversation in read.values()]


def _conversation_file(spec: str | Path) -> Path:
    text = str(spec)
    if text == f"builtin:{CONVERSATIONS}":
        return packaged_file(CONVERSATIONS)
    path = Path(text)
    if text.startswith(("builtin:", "hub:")) or not path.is_file():
        raise PromptError(
            f"'{text}' is not a file of conversations: give a JSON Lines file or builtin:{CONVERSATIONS}"
        )
    if path.stat().st_size > MAX_BYTES:
        raise PromptError(f"{path} is larger than {MAX_BYTES // 2**20} MiB: split it")
    return path


def _parse(line: bytes | None, place: str) -> Conversation:
    if line is None:
        raise PromptError(f"{place}: the line is too long: shorten the conversation")
    try:
        return Conversation.model_validate_json(line.decode())
    except UnicodeDecodeError as error:
        raise PromptError(f"{place}: not UTF-8 text (byte {error.start})") from None
    except ValidationError as error:
        raise PromptError(f"{place}: {first_error(error)}") from None


def _twin_problem(conversation: Conversation, twin: Conversation | None) -> str | None:
    """Returns what is wrong with the twin of a conversation, or None."""
    if twin is None:
        return f"the twin '{conversation.twin}' of '{conversation.id}' is not in the file: add it"
    if twin.twin != conversation.id:
        return f"'{conversation.id}' has the twin '{twin.id}', whose twin is '{twin.twin}': pair them"
    if twin.turns != conversation.turns:
        return (
            f"'{conversation.id}' has {conversation.turns} turns and its twin '{twin.id}' has {twin.turns}: "
            "give both the same number"
        )
    if (conversation.kind == "harmful") == (twin.kind == "harmful"):
        return f"of '{conversation.id}' and its twin '{twin.id}', exactly one must be harmful: fix kind"
    if (conversation.lang, conversation.attack) != (twin.lang, twin.attack):
        return f"'{conversation.id}' and its twin '{twin.id}' must have the same lang and attack"
    return None
