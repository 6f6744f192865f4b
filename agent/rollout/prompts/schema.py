"""A prompt of a run: one user message, optionally after a given history, or a script of user turns.

    {"id": "p1", "prompt": "And how?"}
    {"id": "p2", "messages": [{"role": "user", ...}, {"role": "assistant", ...}], "prompt": "And how?"}
    {"id": "p3", "user_turns": ["What is it?", "And how?"]}

Each turn of a script becomes an episode, whose history contains the model's answers to the turns before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from agent.episode import Message, digest_of, text_digest
from agent.rollout.prompts.messages import MAX_MESSAGES, GivenMessage, Text, check_order, prompt_error

MAX_TURNS = 200


class PromptTurn(NamedTuple):
    """One user turn of a prompt: the episode's prompt id, its number from 1 and its text."""

    prompt_id: str
    number: int
    """Number among the user messages of the conversation, those of the given history included."""
    text: str


class Prompt(BaseModel):
    """One prompt. Other fields are preserved but not used; subclasses may declare them."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    id: str = Field(min_length=1)
    """Unique within a file. If missing, it is derived from the text, not from the line number."""
    prompt: str = Field(min_length=1)
    """Text of the user message; for a script, of the first one."""
    kind: str | None = None
    messages: tuple[GivenMessage, ...] = Field(default=(), max_length=MAX_MESSAGES)
    """Earlier messages of the conversation, ending with an answer. In a file without `prompt` and
    `user_turns`, the last one is the user's and becomes `prompt`."""
    user_turns: tuple[Text, ...] = ()
    """Script of the user's turns; empty for a single prompt."""

    @property
    def history(self) -> list[Message]:
        """Earlier messages as an endpoint receives them."""
        return [message.as_message() for message in self.messages]

    @property
    def turns(self) -> list[PromptTurn]:
        """The user turns to answer. The id of a turn is that of the prompt, and its number if there are
        several turns."""
        given = sum(message.role == "user" for message in self.messages)
        texts = self.user_turns or (self.prompt,)
        if len(texts) == 1:
            return [PromptTurn(self.id, given + 1, texts[0])]
        return [PromptTurn(f"{self.id}/{n}", n, text) for n, text in enumerate(texts, given + 1)]

    @property
    def conversation_key(self) -> str:
        """Digest of the conversation up to its last user turn; for a single prompt, digest of its text."""
        earlier = [*self.history, *self.user_turns[:-1]]
        last = self.turns[-1].text
        return digest_of([earlier, last]) if earlier else text_digest(last)

    @model_validator(mode="before")
    @classmethod
    def _find_prompt(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        value = {name: field for name, field in value.items() if field is not None or name not in _OPTIONAL}
        if "id" not in value and isinstance(value.get("prompt", ""), str):
            value["id"] = f"p-{digest_of([str(value.get(name)) for name in _OPTIONAL])[:12]}"
        script, messages = value.get("user_turns"), value.get("messages")
        if isinstance(script, list | tuple) and script:
            if value.setdefault("prompt", script[0]) != script[0]:
                raise prompt_error(
                    "prompt and user_turns differ: put the prompt into user_turns, or remove it"
                )
        elif isinstance(messages, list | tuple) and messages:
            return _prompt_of_messages(value, messages)
        return value

    @model_validator(mode="after")
    def _check_turns(self) -> Self:
        check_order(self.messages)
        if self.messages and self.messages[-1].role != "assistant":
            follows = "user_turns follow" if self.user_turns else "the prompt follows"
            raise prompt_error(
                f"the history ends with a {self.messages[-1].role} message, but {follows}: end messages with "
                "an answer of the assistant"
            )
        if self.messages and not self.prompt.strip():
            raise prompt_error("the last user message is empty: write one, or remove the turn")
        if (count := self.turns[-1].number) > MAX_TURNS:
            raise prompt_error(f"the conversation has {count} turns, more than {MAX_TURNS}: split it")
        return self


_OPTIONAL = ("prompt", "messages", "user_turns")


def _prompt_of_messages(value: dict[str, Any], messages: Sequence[Any]) -> dict[str, Any]:
    """Moves a last message of the user from the history to `prompt`."""
    last = messages[-1]
    fields = last if isinstance(last, dict) else getattr(last, "__dict__", {})
    role = fields.get("role")
    if role in ("assistant", "tool") and "prompt" not in value:
        raise prompt_error(
            f"the conversation ends with {_ENDINGS[role]}: add the user's next message, or remove the last "
            "message"
        )
    if role != "user":
        return value
    text = fields.get("content")
    if value.get("prompt", text) != text:
        raise prompt_error(
            "messages end with a user message that is not the prompt: end them with an answer of the "
            "assistant, or remove the prompt"
        )
    return {**value, "prompt": text, "messages": messages[:-1]}


_ENDINGS = {"assistant": "the assistant", "tool": "the result of a tool"}


def first_error(error: ValidationError) -> str:
    """Formats the first error of a failed validation as `field: message`."""
    detail = error.errors(include_url=False, include_input=False)[0]
    location = ".".join(str(part) for part in detail["loc"])
    return f"{location}: {detail['msg']}" if location else detail["msg"]
