"""What is recorded of one prompt: an `Episode`, its `Turn`s and its `Consultation`s.

Unknown fields are kept, so that a newer log can be read and written back by this version.
"""

from __future__ import annotations

import hashlib
import json
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
Message = dict[str, Any]

Seconds = Annotated[float, Field(ge=0)]


def digest_of(value: Any) -> str:
    """SHA-256 (64 hex characters) of a JSON value, whatever the order of its keys."""
    canonical = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return text_digest(canonical)


def text_digest(text: str) -> str:
    """SHA-256 (64 hex characters) of a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _is_call(entry: Any) -> bool:
    function = entry.get("function") if isinstance(entry, dict) else None
    if not isinstance(function, dict):
        return False
    return all(isinstance(text, str) for text in (entry.get("id"), *map(function.get, ("name", "arguments"))))


class _Record(BaseModel):
    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)


class ErrorRecord(_Record):
    """A fault of ours that ended the episode, or that kept the rules from being consulted."""

    boundary: str
    """What broke: `endpoint`, `rules`, `log`, or `agent` for a fault that no other name fits."""
    type: str
    """A short stable word for the kind of fault, such as `unreachable` or `http_429`."""
    message: str
    """One sentence for a person, without credentials."""
    setup: bool = False
    """Whether the address, key or model is at fault, so that every other prompt would fail the same way."""


class RuleHit(_Record):
    """One rule that a consultation returned; its text is in the consultation's text."""

    id: str
    """The rule's stable id, such as `cyber.unauthorised-access`."""
    category: str
    """Id of the category that holds the rule."""
    stance: str
    """`decline`, `limit` or `answer`."""
    score: float
    """Similarity of the situation and the rule, as the service reported it."""


class Consultation(_Record):
    """One call of the rule tool, whether or not it could be carried out."""

    turn: int = Field(ge=0)
    """Index of the turn whose reply made the call."""
    call_id: str
    """Id of the tool call, unique in the episode; exactly one message answers it."""
    arguments: str
    """The arguments exactly as the model emitted them; need not be valid JSON."""
    situation: str | None = None
    """The `situation` argument; None when the arguments hold no such text."""
    verdict: str | None = None
    """`rules_found` or `no_applicable_rule`; None when the service gave no verdict."""
    rules: list[RuleHit] = Field(default_factory=list)
    """The rules returned, best first; empty unless the verdict is `rules_found`."""
    threshold: float | None = None
    """The score that a rule had to reach; None when the service gave no verdict."""
    digest: str | None = None
    """Digest of the rulebook that answered; None when the service gave no verdict."""
    text: str | None = None
    """What the model was given to read in answer to its call, errors included."""
    seconds: Seconds = 0.0
    """Wall-clock time of the consultation; 0 when the service was not asked."""
    error: str | None = None
    """Why there is no verdict; None when there is one."""


class Turn(_Record):
    """One call of the model."""

    index: int = Field(ge=0)
    """Position among the episode's turns, from 0."""
    request_digest: str
    """SHA-256 of the request body's settings, messages and tools."""
    finish_reason: str | None = None
    """As the endpoint gave it; None when it gave none."""
    usage: dict[str, Any] | None = None
    """Token counts as the endpoint gave them; None when it gave none, which is not zero."""
    started_at: str
    """UTC time of the first attempt, ISO 8601."""
    seconds: Seconds
    """Wall-clock time of all attempts and the waits between them."""
    attempts: int = Field(default=1, ge=1)
    """Requests sent for this turn, the successful one included."""
    rejected: int = Field(default=0, ge=0)
    """Replies drawn before this one and thrown away, because the episode was to answer directly."""
    call_source: Literal["native", "text"] | None = None
    """Whether the tool calls came in the reply's own field or as `<tool_call>` text; None without calls."""
    prompt_token_ids: list[int] | None = None
    """Token ids of the prompt; None unless the endpoint gives them."""
    token_ids: list[int] | None = None
    """Token ids of the reply; None unless the endpoint gives them."""
    logprobs: Any | None = None
    """Log-probabilities as the endpoint gave them; None unless it gives them."""


class Limits(_Record):
    """Where an episode is stopped although the model wants to go on."""

    turns: int = Field(default=6, ge=1)
    """Most model calls."""
    consultations: int = Field(default=4, ge=0)
    """Most consultations carried out; a further call is answered with an error that says so."""
    tokens: int | None = Field(default=None, ge=1)
    """Most reply tokens over all turns, where the endpoint counts them; None for no limit."""
    seconds: float = Field(default=900.0, gt=0)
    """Most wall-clock time."""


class Episode(_Record):
    """Everything that happened for one prompt."""

    schema_version: int = CURRENT_VERSION
    """Version of this format; what is read is brought up to the one that is written."""
    id: str
    """Unique id of the episode."""
    group_id: str
    """Equal for episodes of one prompt under one model, policy, rulebook, sampling, tools and system text."""
    prompt_id: str
    """Id of the prompt in its file; a digest of the prompt when it has none."""
    kind: str | None = None
    """`harmful`, `benign_sensitive`, `benign_plain` or `math`; None when unknown."""
    prompt: str
    """The user's text."""
    sample_index: int = Field(default=0, ge=0)
    """Which of the samples of this prompt, from 0."""
    model_requested: str
    """The model name sent."""
    model_returned: str | None = None
    """The model name in the last reply; None without one."""
    endpoint: str
    """Base URL of the endpoint, without credentials."""
    api: Api = "chat"
    """The API that was spoken: Chat Completions, or Responses told as such (items in `response_items`)."""
    policy_version: str
    """The user's name for the state of the policy."""
    sampling_sent: dict[str, Any]
    """The sampling fields sent with every turn."""
    sampling_effective: dict[str, Any] | None = None
    """What the endpoint says it used; None when it does not say."""
    source: Literal["agent", "gateway"] = "agent"
    """Who drove the conversation: our agent, or an application whose requests came through the gateway."""
    tool_mode: ToolMode = "native"
    """`text` when tool results went back as a user message."""
    rulebook_digest: str | None = None
    """Digest of the rulebook that could be consulted; None when there was none."""
    tool_schema_digest: str | None = None
    """SHA-256 of `tools`; None when none were offered."""
    prompt_digest: str
    """SHA-256 of the system text."""
    limits: Limits = Field(default_factory=Limits)
    """The limits that the episode ran under."""
    messages: list[Message]
    """The conversation in OpenAI form: system, user, assistant, and one answer to every tool call."""
    tools: list[dict[str, Any]] = Field(default_factory=list)
    """The tools exactly as sent; empty when none were offered."""
    turns: list[Turn] = Field(default_factory=list)
    """The model calls that were answered, in order; one for every assistant message that the model wrote."""
    consultations: list[Consultation] = Field(default_factory=list)
    """The calls of the rule tool, in order."""
    mode: Mode
    """`consult` if the model called the rule tool by name at least once, even malformed or failed."""
    mode_forced: bool = False
    """Whether the mode was imposed rather than chosen."""
    mode_method: ModeMethod | None = None
    """How it was imposed: `agent_call` written by the agent, `logit_bias` or `resample` against calls, or
    `resample_failed` when every draw called; None for a free episode."""
    stop_reason: StopReason
    """`answer`; `limit` reached; `refused` by the endpoint or for want of rules; `error` of ours."""
    on_rules_error: OnRulesError = "answer"
    """What was to happen if the rules could not be consulted."""
    error: ErrorRecord | None = None
    """The fault of ours; None when there was none."""
    started_at: str
    """UTC time of the start, ISO 8601."""
    seconds: Seconds
    """Wall-clock time from start to end; of the resumed part only, when the run was interrupted."""

    @field_validator("messages")
    @classmethod
    def _readable(cls, messages: list[Message]) -> list[Message]:
        """Whoever reads a log may count on what is checked here; any other field may be anything."""
        for message in messages:
            calls = message.get("tool_calls")
            if calls is not None and not (isinstance(calls, list) and all(map(_is_call, calls))):
                raise ValueError("a call has no id, or no function with a name and arguments, all text")
        return messages

    @model_validator(mode="before")
    @classmethod
    def _of_any_version(cls, given: Any) -> Any:
        return migrate(given) if isinstance(given, dict) else given

    @property
    def answer(self) -> str | None:
        """The final answer: the last message, if the assistant wrote it and calls no tool; None otherwise."""
        if self.stop_reason not in ("answer", "refused") or not self.messages:
            return None
        last = self.messages[-1]
        if last.get("role") != "assistant" or last.get("tool_calls"):
            return None
        content = last.get("content")
        return content if isinstance(content, str) else None


def now() -> str:
    """The time in UTC, ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
