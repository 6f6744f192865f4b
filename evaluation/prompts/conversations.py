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
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from agent.episode import numbered_lines
from agent.errors import LogError
from evaluation.errors import PromptError
from evaluation.prompts.loader import CONVERSATIONS, packaged_file
from evaluation.prompts.schema import first_error

MAX_BYTES = 64 * 2**20
MAX_TURNS = 200
MAX_MESSAGES = 2_000
MAX_CHARACTERS = 100_000
"""Per text of a message or turn."""

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


def _error(text: str) -> PydanticCustomError:
    # A custom error rather than a ValueError, because pydantic prefixes the latter with "Value error, ".
    # The text is an argument, because braces in it are not fields of a template.
    return PydanticCustomError("conversation", "{text}", {"text": text})


def _not_blank(text: str) -> str:
    if not text.strip():
        raise _error("the text is empty: write one, or remove the turn")
    return text


Text = Annotated[str, Field(max_length=MAX_CHARACTERS), AfterValidator(_not_blank)]
Name = Annotated[str, Field(min_length=1, max_length=200)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class CalledFunction(_Part):
    """Function of a tool call, with its arguments as JSON text."""

    name: Name
    arguments: str = Field(max_length=MAX_CHARACTERS)


class GivenToolCall(_Part):
    """Tool call of an assistant message."""

    id: Name
    type: Literal["function"] = "function"
    function: CalledFunction


class GivenMessage(_Part):
    """Message of the given history, in the form of OpenAI's chat completions, without the system text."""

    role: Literal["user", "assistant", "tool"]
    content: Text | None = None
    """None only for an assistant message with tool calls."""
    tool_calls: tuple[GivenToolCall, ...] = Field(default=(), max_length=32)
    """Only for an assistant message."""
    tool_call_id: Name | None = None
    """Call whose result a tool message contains; None for other roles."""

    @model_validator(mode="after")
    def _check_fields(self) -> Self:
        if self.tool_calls and self.role != "assistant":
            raise _error(f"the {self.role} message has tool_calls: only the assistant calls tools")
        if (self.tool_call_id is not None) != (self.role == "tool"):
            raise _error("tool_call_id is required in a tool message and not accepted in others")
        if self.content is None and not self.tool_calls:
            raise _error(f"the {self.role} message has no content: write a text, or remove the message")
        return self


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
    """Texts of the user, in order; the model's answers lie between them."""
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
            raise _error("the conversation has no turns: write at least one text in user_turns")
        if self.turns > MAX_TURNS:
            raise _error(f"the conversation has {self.turns} turns, more than {MAX_TURNS}: split it")
        _check_order(self.messages)
        last = self.messages[-1] if self.messages else None
        if last is not None and last.role == "assistant" and not self.user_turns:
            raise _error("the conversation ends with the assistant: add a user turn after its last answer")
        if last is not None and last.role != "assistant" and self.user_turns:
            raise _error(
                f"the history ends with a {last.role} message, but user_turns follow: end messages with an "
                "answer of the assistant"
            )
        return self


def _check_order(messages: tuple[GivenMessage, ...]) -> None:
    """Raises an error unless user and assistant alternate and each tool call is followed by its result."""
    previous = ""
    unanswered: list[str] = []
    for number, message in enumerate(messages, 1):
        if message.role == "tool":
            if message.tool_call_id not in unanswered:
                raise _error(
                    f"message {number} is the result of '{message.tool_call_id}', which is not an unanswered "
                    "tool call of the assistant before it: fix tool_call_id or the order of the roles"
                )
            unanswered.remove(message.tool_call_id)
        elif unanswered:
            break
        elif message.role != _NEXT[previous]:
            before = f"follows one of the {previous}" if previous else "is the first"
            raise _error(
                f"the roles are out of order: message {number} of the {message.role} {before}, where one of "
                f"the {_NEXT[previous]} is expected"
            )
        calls = [call.id for call in message.tool_calls]
        if len(set(calls)) < len(calls):
            raise _error(f"message {number} repeats the id of a tool call: ids must differ")
        unanswered += calls
        previous = message.role
    if unanswered:
        raise _error(f"the tool call '{unanswered[0]}' has no result: add a tool message directly after it")


_NEXT = {"": "user", "user": "assistant", "assistant": "user", "tool": "assistant"}
"""Role -> role of the message after it, without results of tools."""


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
