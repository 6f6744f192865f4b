"""A randomly initialised Qwen3 of a few hundred kilobytes, with Qwen3's chat template and tool calls."""

from pathlib import Path

from tests.fakes.models.templates import build_tokenizer


def save_tiny_qwen3(directory: Path) -> Path:
    """Writes the model and its tokenizer to a folder. Returns the folder."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokenizer = build_tokenizer("qwen3")
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            tie_word_embeddings=True,
        )
    )
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory
