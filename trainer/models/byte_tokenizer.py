"""A tokenizer for a chat template alone: bytes, and the special tokens that the template mentions."""

from __future__ import annotations

import re
from typing import Any

_SPECIAL = re.compile(
    r"<[|｜][^<>{}\s'\"]+[|｜]?>|<[a-z_]+[|｜]>|<(?:start|end)_of_\w+>|\[/?[A-Z][A-Z_]+\]|</?s>"
    r"|<[A-Z][A-Z_]*_\d+>|\]~b\]|\[e~\["
)
_TAGS = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
_END = "<|end-of-text|>"


def byte_tokenizer(template: str) -> Any:
    """Builds a byte-level tokenizer with a chat template. Its special tokens are single tokens.

    Args:
        template: text of the template, in Jinja.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={letter: id for id, letter in enumerate(alphabet)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<|begin-of-text|>",  # noqa: S106
        eos_token=_END,
        pad_token=_END,
    )
    special = sorted({*_SPECIAL.findall(template)} - {*_TAGS})
    tokenizer.add_special_tokens({"extra_special_tokens": special})
    tokenizer.add_tokens([tag for tag in _TAGS if tag in template])
    tokenizer.chat_template = template
    return tokenizer
