"""Results of a training stage on disk."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.fakes.models.tiny_llama import save_tiny_llama
from trainer.errors import TrainingError
from trainer.stages import model_io as adapter
from trainer.stages.model_io import save_stage


@pytest.fixture
def adapted(tmp_path: Path) -> tuple[Any, Any]:
    """A model with a non-zero adapter, and its tokenizer."""
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    start = save_tiny_llama(tmp_path / "start")
    base = AutoModelForCausalLM.from_pretrained(start, dtype="float32")
    model = get_peft_model(base, adapter.adapter_config(start, 4, 2))
    torch.manual_seed(1)
    for name, weights in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, std=0.1)
    return model, AutoTokenizer.from_pretrained(start)


def fake_fsdp_trainer(model: Any) -> Any:
    """A trainer that reports a sharded model and gathers its weights in this process."""
    accelerator = SimpleNamespace(
        is_main_process=True, get_state_dict=lambda held: held.state_dict(), unwrap_model=lambda held: held
    )
    return SimpleNamespace(is_fsdp_enabled=True, model=model, accelerator=accelerator)


def test_gathered_weights_are_saved_and_merged_like_weights_in_place(
    adapted: tuple[Any, Any], tmp_path: Path
) -> None:
    model, tokenizer = adapted
    save_stage(tmp_path / "collected", fake_fsdp_trainer(model), tokenizer, str(tmp_path / "start"))
    adapter.save_adapter(tmp_path / "in-place", model, tokenizer)
    for file in ("adapter/adapter_model.safetensors", "merged/model.safetensors"):
        one, two = (load_file(tmp_path / name / file) for name in ("collected", "in-place"))
        assert one.keys() == two.keys()
        for name, weights in one.items():
            torch.testing.assert_close(weights, two[name], rtol=0, atol=1e-6)


def test_a_failed_write_leaves_the_earlier_result_unchanged(
    adapted: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = adapted
    save_stage(tmp_path / "out", fake_fsdp_trainer(model), tokenizer, str(tmp_path / "start"))
    before = (tmp_path / "out" / "merged" / "model.safetensors").read_bytes()

    def raise_disk_full(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tokenizer, "save_pretrained", raise_disk_full)
    with pytest.raises(TrainingError, match=r"adapter cannot be written .*No space left on device.*--resume"):
        save_stage(tmp_path / "out", fake_fsdp_trainer(model), tokenizer, str(tmp_path / "start"))
    assert (tmp_path / "out" / "merged" / "model.safetensors").read_bytes() == before
    assert not list((tmp_path / "out").glob(".*"))
