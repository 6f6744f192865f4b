"""Where endpoints differ, as data.

An assistant message goes back as it came, so a thought returns under the field it arrived in; the names below
only say which fields hold a thought that a person can be shown.
"""

from __future__ import annotations

from typing import Any

# Field of a message or delta -> who uses it.
REASONING_FIELDS = {
    "reasoning_content": "DeepSeek, Kimi, SGLang, transformers serve, older vLLM",
    "reasoning": "vLLM from 0.20, OpenRouter",
}

# vLLM and transformers serve turn echoed tool arguments into an object before templating, and answer one of
# these when the arguments are not JSON.
REJECTS_MALFORMED_ARGUMENTS = frozenset({400, 422, 500})


def reasoning_text(message: dict[str, Any]) -> str:
    """The readable thought in a message or a streamed delta; empty when there is none."""
    for field in REASONING_FIELDS:
        if isinstance(text := message.get(field), str) and text:
            return text
    return ""
