"""The record of one prompt: an `Episode` with its `Turn`s and `Consultation`s.

Unknown fields are preserved, so this version can read and rewrite a log with fields that it does not know.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from agent.episode.migrations import CURRENT_VERSION, migrate

Mode = Literal["consult", "direct"]
ToolMode = Literal["native", "text"]
StopReason = Literal["answer", "limit", "refused", "error"]
ModeMethod = Literal["agent_call", "logit_bias", "resample", "resample_failed"]
Api = Literal["chat", "responses"]
OnRulesError = Literal["answer", "refuse", "fail"]
History = Literal["full", "last"]
Message = dict[str, Any]

Seconds = Annotated[float, Field(ge=0)]


def digest_of(value: Any) -> str:
    """Returns the SHA-256 (64 hex characters) of a JSON value, independent of the order of its keys."""
    canonical = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return text_digest(canonical)


def text_digest(text: str) -> str:
    """Returns the SHA-256 (64 hex characters) of a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _is_call(entry: Any) -> bool:
    function = entry.get("function") if isinstance(entry, dict) else None
    if not isinstance(function, dict):
        return False
    return all(isinstance(text, str) for text in (entry.get("id"), *map(function.get, ("name", "arguments"))))


class _Record(BaseModel):
    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)


class ErrorRecord(_Record):
    """A failure that ended the episode or prevented a consultation."""

    boundary: str
    """The component that failed: `endpoint`, `rules`, `log`, or `agent` for anything else."""
    type: str
    """A short stable identifier of the failure, such as `unreachable` or `http_429`."""
    message: str
    """One sentence for a person, without credentials."""
    setup: bool = False
    """Whether an address, a key or the model name is wrong, so that every other prompt would fail too."""


class RuleHit(_Record):
    """One rule that a consultation returned; the consultation's text contains the text of the rule."""

    id: str
    """The rule's stable id, such as `cyber.unauthorised-access`."""
    category: str
    """Id of the category that contains the rule."""
    stance: str
    """`decline`, `limit` or `answer`."""
    score: float
    """Similarity of the situation and the rule, as reported by the service."""


class Consultation(_Record):
    """One call of the rule tool, successful or not."""

    turn: int = Field(ge=0)
    """Index of the turn whose reply contains the call."""
    call_id: str
    """Id of the tool call, unique in the episode; exactly one message answers it."""
    arguments: str
    """The arguments exactly as the model wrote them; possibly not valid JSON."""
    situation: str | None = None
    """The `situation` argument; None when the arguments do not contain it as text."""
    verdict: str | None = None
    """`rules_found` or `no_applicable_rule`; None when the service returned no verdict."""
    rules: list[RuleHit] = Field(default_factory=list)
    """The rules returned, best first; empty unless the verdict is `rules_found`."""
    threshold: float | None = None
    """The minimum score of an applicable rule; None when the service returned no verdict."""
    digest: str | None = None
    """Digest of the rulebook that the service used; None when the service returned no verdict."""
    text: str | None = None
    """The result that the model received for its call, including error messages."""
    seconds: Seconds = 0.0
    """Wall-clock time of the consultation; 0 when the service was not queried."""
    error: str | None = None
    """The reason why there is no verdict; None when there is one."""


class Hint(_Record):
    """The line about the rules near the request that the agent or the gateway added to the system text."""

    version: str
    """Version of its wording, as the service names it."""
    text: str
    """The line."""
    verdict: str | None = None
    """`rules_found` or `no_applicable_rule`; None when the service did not state it."""
    rules: list[RuleHit] = Field(default_factory=list)
    """The rules named, best first."""
    digest: str | None = None
    """Digest of the rulebook."""
    seconds: Seconds = 0.0
    """Wall-clock time of the request for the hint."""


class Turn(_Record):
    """One call of the model."""

    index: int = Field(ge=0)
    """Position among the episode's turns, from 0."""
    request_digest: str
    """SHA-256 of the model name, sampling fields, messages and tools of the request."""
    finish_reason: str | None = None
    """The finish reason that the endpoint reported; None when it reported none."""
    usage: dict[str, Any] | None = None
    """The token counts that the endpoint reported; None (not zero) when it reported none."""
    started_at: str
    """UTC time of the first attempt, ISO 8601."""
    seconds: Seconds
    """Wall-clock time of all attempts, including the waits between them."""
    attempts: int = Field(default=1, ge=1)
    """Requests sent for this turn, including the successful one."""
    rejected: int = Field(default=0, ge=0)
    """Replies that were sampled before this one and discarded, because the episode had to answer directly."""
    call_source: Literal["native", "text"] | None = None
    """Whether the calls were in the reply's `tool_calls` or in `<tool_call>` text; None without calls."""
    prompt_token_ids: list[int] | None = None
    """Token ids of the prompt; None unless the endpoint returns them."""
    token_ids: list[int] | None = None
    """Token ids of the reply; None unless the endpoint returns them."""
    logprobs: Any | None = None
    """Log-probabilities as the endpoint returned them; None unless it returns them."""


class ConversationTurn(_Record):
    """Place of an episode in a conversation of several user turns, one episode per turn."""

    id: str
    """Id of the conversation in its file of prompts."""
    turn: int = Field(ge=1)
    """Number of the user's message, from 1; messages of a given history count."""
    turns: int = Field(ge=1)
    """Number of the user's messages in the whole conversation."""
    history: History = "full"
    """`last` if the model received only this turn, without the earlier messages."""


class Limits(_Record):
    """Limits that stop an episode before the model has answered."""

    turns: int = Field(default=6, ge=1)
    """Maximum number of model calls."""
    consultations: int = Field(default=4, ge=0)
    """Maximum number of consultations; the model receives an error message for each further call."""
    tokens: int | None = Field(default=None, ge=1)
    """Maximum number of reply tokens over all turns, where the endpoint counts them; None for no limit."""
    seconds: float = Field(default=900.0, gt=0)
    """Maximum wall-clock time."""


class Episode(_Record):
    """The complete record of one prompt."""

    schema_version: int = CURRENT_VERSION
    """Version of this schema; older lines are upgraded when they are read."""
    id: str
    """Unique id of the episode."""
    group_id: str
    """Equal for episodes of one prompt, after the same earlier messages, under one model, policy, rulebook,
    sampling, tools and system text."""
    prompt_id: str
    """Id of the prompt in its file, or a digest of a prompt without an id and of the messages before it."""
    kind: str | None = None
    """`harmful`, `benign_sensitive`, `benign_plain` or `math`; None when unknown."""
    prompt: str
    """The user's text."""
    sample_index: int = Field(default=0, ge=0)
    """Number of this sample among the samples of its prompt, from 0."""
    model_requested: str
    """The model name in the request."""
    model_returned: str | None = None
    """The model name in the last reply; None when the reply names none."""
    endpoint: str
    """Base URL of the endpoint, without credentials."""
    api: Api = "chat"
    """The API of the endpoint: `chat` (Chat Completions) or `responses` (items in `response_items`)."""
    policy_version: str
    """The user's name for the version of the policy."""
    sampling_sent: dict[str, Any]
    """The sampling fields sent with every turn."""
    sampling_effective: dict[str, Any] | None = None
    """The sampling settings that the endpoint reported, or that a run checked; None when they are unknown."""
    source: Literal["agent", "gateway"] = "agent"
    """The driver of the conversation: the agent, or an application through the gateway."""
    tool_mode: ToolMode = "native"
    """`text` when tool results were sent as a user message."""
    rulebook_digest: str | None = None
    """Digest of the rulebook that the model could consult; None if there was none."""
    tool_schema_digest: str | None = None
    """SHA-256 of `tools`; None when no tool was offered."""
    prompt_digest: str
    """SHA-256 of the system text, without the hint."""
    hint: Hint | None = Field(default=None, exclude_if=lambda value: value is None)
    """The hint at the end of the system text; None if there was none."""
    limits: Limits = Field(default_factory=Limits)
    """The limits of the episode."""
    messages: list[Message]
    """The conversation in OpenAI form: system, user, assistant, and one answer for each tool call."""
    given_messages: int | None = Field(default=None, ge=0, exclude_if=lambda value: value is None)
    """Number of messages before the first that was written in this episode. Recorded only if they contain an
    earlier reply; otherwise null, and the episode begins after the last message of the user."""
    conversation: ConversationTurn | None = Field(default=None, exclude_if=lambda value: value is None)
    """Place in a conversation that the run played turn by turn, or whose earlier messages it left out.
    Otherwise null: the messages then contain the whole conversation."""
    tools: list[dict[str, Any]] = Field(default_factory=list)
    """The tools exactly as sent; empty when none were offered."""
    turns: list[Turn] = Field(default_factory=list)
    """The model calls that returned a reply, in order; one for each assistant message of the model."""
    consultations: list[Consultation] = Field(default_factory=list)
    """The calls of the rule tool, in order."""
    mode: Mode
    """`consult` if the model called the rule tool at least once, even if the call was malformed or failed."""
    mode_forced: bool = False
    """Whether the mode was forced rather than chosen by the model."""
    mode_method: ModeMethod | None = None
    """The method that forced the mode: `agent_call` (the agent wrote the call), `logit_bias` or `resample`
    against calls, or `resample_failed` when every sample contained a call; None when the model chose."""
    stop_reason: StopReason
    """`answer`; `limit` reached; `refused` by the endpoint or without rules; `error` of a component."""
    on_rules_error: OnRulesError = "answer"
    """The action chosen for the case that the rules cannot be consulted."""
    answered_without_rules: str | None = None
    """Cause, such as `timeout`, `http_429` or `service_error`, if the model answered although it could not
    consult the rules, and `no_verdict` if its calls were malformed; None otherwise."""
    error: ErrorRecord | None = None
    """The failure of a component; None when there was none."""
    started_at: str
    """UTC time of the start, ISO 8601."""
    seconds: Seconds
    """Wall-clock time from start to end; only of the resumed part when the run was interrupted."""

    @field_validator("messages")
    @classmethod
    def _check_calls(cls, messages: list[Message]) -> list[Message]:
        """Readers of a log may rely on the form of the calls; all other fields may contain anything."""
        for message in messages:
            calls = message.get("tool_calls")
            if calls is not None and not (isinstance(calls, list) and all(map(_is_call, calls))):
                raise ValueError("a call lacks an id, or a function with a name and arguments, all text")
        return messages

    @model_validator(mode="before")
    @classmethod
    def _upgrade(cls, value: Any) -> Any:
        return migrate(value) if isinstance(value, dict) else value

    @property
    def answer(self) -> str | None:
        """The final answer: the last message, if the assistant wrote it and calls no tool; None otherwise."""
        if self.stop_reason not in ("answer", "refused") or not self.messages:
            return None
        if self.given_messages is not None and self.given_messages >= len(self.messages):
            return None
        last = self.messages[-1]
        if last.get("role") != "assistant" or last.get("tool_calls"):
            return None
        content = last.get("content")
        return content if isinstance(content, str) else None


@dataclass(frozen=True)
class Event:
    """An event that a listener receives while an episode runs; it is not logged.

    `reasoning` and `content` carry a streamed piece of text, `call` the raw arguments of a consultation that
    starts, `consulted` the finished consultation, `retry` the reason for a repeated request, and `warning` a
    sentence.
    """

    kind: Literal["reasoning", "content", "call", "consulted", "retry", "warning"]
    text: str = ""
    consultation: Consultation | None = None


Listener = Callable[[Event], None]


def now() -> str:
    """Returns the current time in UTC, ISO 8601 with milliseconds: the time format of the whole project."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
