"""Differences between endpoints, as one table. `ascl-agent probe URL` determines the row of an endpoint.

The columns `token_limit`, `logprobs`, `token_ids` and `stream_usage` change the requests, and a run checks the
sampling where `own_sampling` is `no`; the other columns only inform. An assistant message is sent back unchanged, so reasoning keeps the provider's field name.
"""

# ruff: noqa: E501, S105, S106 - one row a line; these tokens are not passwords

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal
from urllib.parse import urlsplit

# Field of a message or delta -> its users. If a message has several of them, the first is displayed.
REASONING_FIELDS = {
    "reasoning_content": "DeepSeek, Kimi, Qwen, SGLang, llama.cpp, transformers serve, older vLLM",
    "reasoning": "vLLM from 0.20, gpt-oss, Ollama, OpenRouter",
    "thinking": "Ollama's own API, gpt-oss templates",
}

# Statuses with which vLLM and transformers serve reject a history whose tool arguments are not JSON: they parse
# the arguments before templating.
REJECTS_MALFORMED_ARGUMENTS = frozenset({400, 422, 500})

Support = Literal["yes", "no", "?"]


@dataclass(frozen=True)
class Quirks:
    """The behaviour of one endpoint; `?` where it depends on the model or is unknown."""

    name: str
    """The provider or server."""
    reasoning: str = "?"
    """Field of a message that contains the reasoning; `none` if replies have no reasoning."""
    token_limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """Name of the field that limits the tokens of a reply."""
    tools: Support | Literal["text"] = "yes"
    """Whether replies have calls in `tool_calls`; `text` when they remain `<tool_call>` text."""
    tool_choice: Support = "yes"
    """Whether a request can require a call."""
    malformed: Support = "yes"
    """Whether arguments in the history may be invalid JSON."""
    seed: Support = "yes"
    """Whether the endpoint accepts a seed."""
    logprobs: Support = "yes"
    """Whether replies include log-probabilities on request."""
    token_ids: Support = "no"
    """Whether replies include token ids on request (`return_token_ids`)."""
    stream_usage: Support = "yes"
    """Whether a stream includes token counts on request (`stream_options`)."""
    responses: Support = "?"
    """Whether the endpoint also serves the Responses API (`--api responses`)."""
    extra_fields: Support = "yes"
    """Whether the endpoint accepts unknown request fields."""
    own_sampling: Support = "?"
    """Whether each request is sampled by its own temperature and `top_p`. `transformers serve
    --continuous-batching` applies those of its first request to all."""
    hosts: tuple[str, ...] = ()
    """Suffixes of the host names that identify it."""


# fmt: off
PROFILES = (
    #      name                  reasoning            token_limit              tools  choice malf.  seed   logp.  ids    usage  resp.  extra  own    hosts
    Quirks("OpenAI",             "none",              "max_completion_tokens", "yes", "yes", "yes", "yes", "?",   "no",  "yes", "yes", "no",  "yes", ("api.openai.com",)),
    Quirks("vLLM",               "reasoning",         "max_tokens",            "yes", "yes", "no",  "yes", "yes", "yes", "yes", "yes", "yes", "yes"),
    Quirks("SGLang",             "reasoning_content", "max_tokens",            "yes", "yes", "?",   "yes", "yes", "no",  "yes", "yes", "yes", "yes"),
    Quirks("DeepSeek",           "reasoning_content", "max_tokens",            "yes", "no",  "yes", "?",   "?",   "no",  "yes", "no",  "yes", "?",   ("api.deepseek.com",)),
    Quirks("Qwen",               "reasoning_content", "max_tokens",            "yes", "?",   "?",   "yes", "?",   "no",  "yes", "?",   "yes", "yes", (".aliyuncs.com",)),
    Quirks("Kimi",               "reasoning_content", "max_tokens",            "yes", "no",  "?",   "?",   "?",   "no",  "yes", "no",  "yes", "?",   (".moonshot.cn", ".moonshot.ai")),
    Quirks("gpt-oss",            "reasoning",         "max_tokens",            "yes", "?",   "no",  "yes", "yes", "?",   "yes", "?",   "yes", "?"),
    Quirks("llama.cpp",          "reasoning_content", "max_tokens",            "?",   "?",   "yes", "yes", "yes", "no",  "yes", "yes", "yes", "yes"),
    Quirks("Ollama",             "reasoning",         "max_tokens",            "yes", "no",  "no",  "yes", "?",   "no",  "yes", "yes", "yes", "yes"),
    Quirks("transformers serve", "reasoning_content", "max_tokens",            "?",   "no",  "no",  "yes", "no",  "no",  "yes", "yes", "no",  "no"),
)
# fmt: on
UNKNOWN_ENDPOINT = Quirks(
    "unknown", tool_choice="?", malformed="?", seed="?", logprobs="?", token_ids="?", stream_usage="?"
)
"""Requests contain only the fields that every server accepts."""


def quirks_for_url(base_url: str) -> Quirks:
    """Returns the row of the provider with this host name; `UNKNOWN_ENDPOINT` for others, such as local servers."""
    host = urlsplit(base_url).hostname or ""
    return next((row for row in PROFILES if host.endswith(row.hosts)), UNKNOWN_ENDPOINT)


def quirks_named(name: str) -> Quirks | None:
    """Returns the row with this name, ignoring case; None if there is none."""
    return next((row for row in PROFILES if row.name.casefold() == name.casefold()), None)


def quirk_columns() -> list[str]:
    """Returns the column names in order."""
    return [field.name for field in fields(Quirks) if field.name != "hosts"]


def reasoning_field(message: dict[str, Any]) -> str | None:
    """Returns the field of a message or streamed delta with plain-text reasoning; None if there is none."""
    for field in REASONING_FIELDS:
        if isinstance(text := message.get(field), str) and text:
            return field
    return None


def reasoning_text(message: dict[str, Any]) -> str:
    """Returns the plain-text reasoning of a message or a streamed delta; empty if there is none."""
    field = reasoning_field(message)
    return str(message[field]) if field else ""
