"""Saving what several processes hold in shards: every one takes part in gathering, the first one writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainer import adapter


def save_stage(out: Path, trainer: Any, tokenizer: Any, model: str) -> None:
    """Write `adapter/` and `merged/`; to be called by every process.

    Where the trainer shards its model (FSDP), the adapter is gathered, and merged into the starting model,
    read anew: the sharded one cannot be merged in place.

    Args:
        model: the checkpoint that training started from.

    Raises:
        TrainingError: one cannot be written.
    """
    if not trainer.is_fsdp_enabled:
        if trainer.accelerator.is_main_process:
            adapter.save(out, trainer.model, tokenizer)
        return
    state = trainer.accelerator.get_state_dict(trainer.model)
    if not trainer.accelerator.is_main_process:
        return
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    unwrapped = trainer.accelerator.unwrap_model(trainer.model)
    with adapter.whole(out / "adapter") as folder:
        unwrapped.save_pretrained(folder, state_dict=state)
        tokenizer.save_pretrained(folder)
    base = AutoModelForCausalLM.from_pretrained(model, dtype="auto", device_map="cpu")
    with adapter.whole(out / "merged") as folder:
        PeftModel.from_pretrained(base, out / "adapter").merge_and_unload().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
