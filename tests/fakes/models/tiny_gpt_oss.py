"""A randomly initialised gpt-oss of a few hundred kilobytes, with its chat template, channels and experts."""

from pathlib import Path

from tests.fakes.models.templates import build_tokenizer


def save_tiny_gpt_oss(directory: Path) -> Path:
    """Writes the model and its tokenizer to a folder. Returns the folder."""
    import torch
    from transformers import GptOssConfig, GptOssForCausalLM

    tokenizer = build_tokenizer("gpt-oss")
    torch.manual_seed(0)
    model = GptOssForCausalLM(
        GptOssConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            num_local_experts=4,
            num_experts_per_tok=2,
            sliding_window=128,
            max_position_embeddings=4096,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory
