"""Builds in-memory tokenizers with the chat templates of the model families that the trainer supports."""

import re
from pathlib import Path
from typing import Any

import trl

from tests.fakes.models.tiny_llama import tiny_tokenizer

_TRL = Path(trl.__file__).parent / "chat_templates"
TRL_TEMPLATES = sorted(path.stem for path in _TRL.glob("*.jinja"))
"""Names of all chat templates that TRL ships."""
FAMILIES = ("smollm2", "qwen3", "llama3.1", "gpt-oss")
_SPECIAL = {
    "qwen3": (["<tool_call>", "</tool_call>", "<think>", "</think>"], "<|im_end|>", "qwen3.jinja"),
    "llama3.1": (
        ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
        "<|eot_id|>",
        "llama3_1.jinja",
    ),
    "gpt-oss": (
        ["<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|call|>", "<|return|>"],
        "<|return|>",
        "gptoss.jinja",
    ),
}


def build_tokenizer(family: str) -> Any:
    """Builds a byte-level tokenizer with the family's template, special tokens and end token."""
    tokenizer = tiny_tokenizer()
    if family == "smollm2":
        return tokenizer
    tokens, end, template = _SPECIAL[family]
    special = [token for token in tokens if token.startswith("<|")]
    tokenizer.add_special_tokens({"extra_special_tokens": special})
    tokenizer.add_tokens([token for token in tokens if token not in special])
    tokenizer.eos_token = end
    tokenizer.chat_template = (_TRL / template).read_text(encoding="utf-8")
    return tokenizer


def trl_tokenizer(name: str) -> Any:
    """Builds a byte-level tokenizer with a template that TRL ships, and the special tokens it mentions."""
    source = (_TRL / f"{name}.jinja").read_text(encoding="utf-8")
    tokenizer = tiny_tokenizer()
    special = re.findall(r"<[|｜][^<>{}\s'\"]+[|｜]?>|<[a-z_]+[|｜]>|<end_of_\w+>", source)
    tokenizer.add_special_tokens({"extra_special_tokens": sorted(set(special))})
    tokenizer.add_tokens(
        [tag for tag in ("<think>", "</think>", "<tool_call>", "</tool_call>") if tag in source]
    )
    tokenizer.chat_template = source
    return tokenizer
