"""Messages of a given history, in the form of OpenAI's chat completions, without the system text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from agent.episode import Message

MAX_MESSAGES = 2_000
MAX_CHARACTERS = 100_000
"""Per text of a message or turn."""
_MAX_CALLS = 32
_NEXT = {"": "user", "user": "assistant", "assistant": "user", "tool": "assistant"}
"""Role -> role of the message after it, without results of tools."""


def prompt_error(text: str) -> PydanticCustomError:
    """Returns a validation error with exactly this text."""
    # Not a ValueError, because pydantic prefixes those with "Value error, ". The text is an argument,
    # because braces in it are not fields of a template.
    return PydanticCustomError("prompt", "{text}", {"text": text})


def _not_blank(text: str) -> str:
    if not text.strip():
        raise prompt_error("the text is empty: write one, or remove the turn")
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
    """Message of a given history."""

    role: Literal["user", "assistant", "tool"]
    content: Text | None = None
    """None only for an assistant message with tool calls."""
    tool_calls: tuple[GivenToolCall, ...] = Field(default=(), max_length=_MAX_CALLS)
    """Only for an assistant message."""
    tool_call_id: Name | None = None
    """Call whose result a tool message contains; None for other roles."""

    @model_validator(mode="before")
    @classmethod
    def _without_system(cls, value: object) -> object:
        if isinstance(value, dict):
            if value.get("role") in ("system", "developer"):
                raise prompt_error(f"the agent sets the system text: remove the {value['role']} message")
            # Data sets fill the fields of other roles with null.
            return {name: field for name, field in value.items() if field is not None}
        return value

    @model_validator(mode="after")
    def _check_fields(self) -> Self:
        if self.tool_calls and self.role != "assistant":
            raise prompt_error(f"the {self.role} message has tool_calls: only the assistant calls tools")
        if (self.tool_call_id is not None) != (self.role == "tool"):
            raise prompt_error("tool_call_id is required in a tool message and not accepted in others")
        if self.content is None and not self.tool_calls:
            raise prompt_error(f"the {self.role} message has no content: write a text, or remove the message")
        return self

    def as_message(self) -> Message:
        """Returns the message as an endpoint receives it."""
        message: Message = {"role": self.role, "content": self.content}
        if self.tool_calls:
            message["tool_calls"] = [call.model_dump() for call in self.tool_calls]
        if self.tool_call_id is not None:
            message["tool_call_id"] = self.tool_call_id
        return message


def check_order(messages: Sequence[GivenMessage]) -> None:
    """Raises an error unless user and assistant alternate and each tool call is followed by its result."""
    previous = ""
    unanswered: list[str] = []
    for number, message in enumerate(messages, 1):
        if message.role == "tool":
            if message.tool_call_id not in unanswered:
                raise prompt_error(
                    f"message {number} is the result of '{message.tool_call_id}', which is not an unanswered "
                    "tool call of the assistant before it: fix tool_call_id or the order of the roles"
                )
            unanswered.remove(message.tool_call_id)
        elif unanswered:
            break
        elif message.role != _NEXT[previous]:
            before = f"follows one of the {previous}" if previous else "is the first"
            raise prompt_error(
                f"the roles are out of order: message {number} of the {message.role} {before}, where one of "
                f"the {_NEXT[previous]} is expected"
            )
        calls = [call.id for call in message.tool_calls]
        if len(set(calls)) < len(calls):
            raise prompt_error(f"message {number} repeats the id of a tool call: ids must differ")
        unanswered += calls
        previous = message.role
    if unanswered:
        raise prompt_error(
            f"the tool call '{unanswered[0]}' has no result: add a tool message directly after it"
        )
