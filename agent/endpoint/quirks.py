"""Where endpoints differ, as one table. `ascl-agent probe URL` finds a row out.

An assistant message goes back as it came, so a thought returns under the field it arrived in, whatever the
provider calls it; the columns say what else a client has to know.
"""

# ruff: noqa: E501, S105, S106 - the table is read across; tokens here are no passwords

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal
from urllib.parse import urlsplit

# Field of a message or delta -> who uses it. Where a provider sends several, the first is shown to a person.
REASONING_FIELDS = {
    "reasoning_content": "DeepSeek, Kimi, Qwen, SGLang, llama.cpp, transformers serve, older vLLM",
    "reasoning": "vLLM from 0.20, gpt-oss, Ollama, OpenRouter",
    "thinking": "Ollama's own API, gpt-oss templates",
}

# vLLM and transformers serve turn echoed tool arguments into an object before templating, and answer one of
# these when the arguments are not JSON.
REJECTS_MALFORMED_ARGUMENTS = frozenset({400, 422, 500})

Support = Literal["yes", "no", "?"]


@dataclass(frozen=True)
class Quirks:
    """One endpoint's habits; `?` where they depend on the model or are not known."""

    name: str
    """The provider or server."""
    reasoning: str = "?"
    """Field that a thought arrives in and goes back under; `none` for no thoughts."""
    token_limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the endpoint calls the most tokens of a reply."""
    tools: Support | Literal["text"] = "yes"
    """Whether calls come in their own field; `text` when they stay `<tool_call>` text."""
    tool_choice: Support = "yes"
    """Whether a call can be required."""
    malformed: Support = "yes"
    """Whether echoed arguments may be no JSON."""
    seed: Support = "yes"
    """Whether a seed is accepted."""
    logprobs: Support = "yes"
    """Whether log-probabilities of the reply are given."""
    token_ids: Support = "no"
    """Whether token ids are given (by `return_token_ids`)."""
    stream_usage: Support = "yes"
    """Whether a stream tells its tokens (by `stream_options`)."""
    responses: Support = "?"
    """Whether the Responses API is served beside Chat Completions (`--api responses`)."""
    extra_fields: Support = "yes"
    """Whether fields that the endpoint does not know are let pass."""
    hosts: tuple[str, ...] = ()
    """Ends of host names by which it is known."""


# fmt: off
PROFILES = (
    #      name                  reasoning            token_limit              tools  choice malf.  seed   logp.  ids    usage  resp.  extra  hosts
    Quirks("OpenAI",             "none",              "max_completion_tokens", "yes", "yes", "yes", "yes", "?",   "no",  "yes", "yes", "no",  ("api.openai.com",)),
    Quirks("vLLM",               "reasoning",         "max_tokens",            "yes", "yes", "no",  "yes", "yes", "yes", "yes", "yes", "yes"),
    Quirks("SGLang",             "reasoning_content", "max_tokens",            "yes", "yes", "?",   "yes", "yes", "no",  "yes", "yes", "yes"),
    Quirks("DeepSeek",           "reasoning_content", "max_tokens",            "yes", "no",  "yes", "?",   "?",   "no",  "yes", "no",  "yes", ("api.deepseek.com",)),
    Quirks("Qwen",               "reasoning_content", "max_tokens",            "yes", "?",   "?",   "yes", "?",   "no",  "yes", "?",   "yes", (".aliyuncs.com",)),
    Quirks("Kimi",               "reasoning_content", "max_tokens",            "yes", "no",  "?",   "?",   "?",   "no",  "yes", "no",  "yes", (".moonshot.cn", ".moonshot.ai")),
    Quirks("gpt-oss",            "reasoning",         "max_tokens",            "yes", "?",   "no",  "yes", "yes", "?",   "yes", "?",   "yes"),
    Quirks("llama.cpp",          "reasoning_content", "max_tokens",            "?",   "?",   "yes", "yes", "yes", "no",  "yes", "yes", "yes"),
    Quirks("Ollama",             "reasoning",         "max_tokens",            "yes", "no",  "no",  "yes", "?",   "no",  "yes", "yes", "yes"),
    Quirks("transformers serve", "reasoning_content", "max_tokens",            "?",   "no",  "no",  "yes", "no",  "no",  "yes", "yes", "no"),
)
# fmt: on
UNKNOWN_ENDPOINT = Quirks(
    "unknown", tool_choice="?", malformed="?", seed="?", logprobs="?", token_ids="?", stream_usage="?"
)
"""Nothing beyond the fields that every server takes is sent."""


def quirks_of(base_url: str) -> Quirks:
    """The row of a provider known by its address; `UNKNOWN_ENDPOINT` for any other, such as a server of one's own."""
    host = urlsplit(base_url).hostname or ""
    return next((row for row in PROFILES if host.endswith(row.hosts)), UNKNOWN_ENDPOINT)


def quirks_named(name: str) -> Quirks | None:
    """The row of this name, whatever its case; None when there is none."""
    return next((row for row in PROFILES if row.name.casefold() == name.casefold()), None)


def quirk_columns() -> list[str]:
    """The columns that a row has, in order."""
    return [field.name for field in fields(Quirks) if field.name != "hosts"]


def reasoning_field(message: dict[str, Any]) -> str | None:
    """The field of a message or a streamed delta that holds a readable thought; None when there is none."""
    for field in REASONING_FIELDS:
        if isinstance(text := message.get(field), str) and text:
            return field
    return None


def reasoning_text(message: dict[str, Any]) -> str:
    """The readable thought in a message or a streamed delta; empty when there is none."""
    field = reasoning_field(message)
    return str(message[field]) if field else ""
