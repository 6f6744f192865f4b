"""Randomly initialised models of many families, of a few hundred kilobytes each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fakes.models.tiny_llama import tiny_tokenizer

_SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
_EYES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 14,
}


def _configs() -> dict[str, Callable[[dict[str, Any]], Any]]:
    import transformers as hf

    heads = {**_SHAPE, "head_dim": 8}
    return {
        "qwen3": lambda ids: hf.Qwen3Config(**heads, **ids),
        "phi3": lambda ids: hf.Phi3Config(**_SHAPE, **ids),
        "gemma2": lambda ids: hf.Gemma2Config(**heads, **ids, final_logit_softcapping=0.5),
        "gemma3": lambda ids: hf.Gemma3TextConfig(**heads, **ids),
        "gemma3 with vision": lambda ids: hf.Gemma3Config(
            text_config={**heads, **ids}, vision_config=_EYES, mm_tokens_per_image=4
        ),
        "gpt-oss": lambda ids: hf.GptOssConfig(
            **heads,
            **ids,
            num_local_experts=4,
            num_experts_per_tok=2,
            layer_types=["sliding_attention", "full_attention"] * 2,
        ),
        "qwen3-moe": lambda ids: hf.Qwen3MoeConfig(
            **heads, **ids, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16
        ),
        "granite": lambda ids: hf.GraniteConfig(**_SHAPE, **ids, logits_scaling=8.0),
        "neox": lambda ids: hf.GPTNeoXConfig(
            **{name: size for name, size in _SHAPE.items() if name != "num_key_value_heads"}, **ids
        ),
    }


FAMILIES = (
    *("qwen3", "phi3", "gemma2", "gemma3", "gemma3 with vision"),
    *("gpt-oss", "qwen3-moe", "granite", "neox"),
)


def save_tiny_model(directory: Path, family: str) -> Path:
    """Writes a model of four layers and its tokenizer to a folder. Returns the folder."""
    import torch
    from transformers import AutoModelForCausalLM

    tokenizer = tiny_tokenizer()
    ids = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(_configs()[family](ids)).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory
