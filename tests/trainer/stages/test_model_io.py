"""What a training stage leaves behind."""

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
def trained(tmp_path: Path) -> tuple[Any, Any]:
    """A model with an adapter that changes something, and its tokenizer."""
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


def spread(model: Any) -> Any:
    """A trainer that says that its model is sharded; its weights are collected in this one process."""
    accelerator = SimpleNamespace(
        is_main_process=True, get_state_dict=lambda held: held.state_dict(), unwrap_model=lambda held: held
    )
    return SimpleNamespace(is_fsdp_enabled=True, model=model, accelerator=accelerator)


def test_collected_weights_are_saved_and_merged_as_those_in_place(
    trained: tuple[Any, Any], tmp_path: Path
) -> None:
    model, tokenizer = trained
    save_stage(tmp_path / "collected", spread(model), tokenizer, str(tmp_path / "start"))
    adapter.save_adapter(tmp_path / "in-place", model, tokenizer)
    for file in ("adapter/adapter_model.safetensors", "merged/model.safetensors"):
        one, two = (load_file(tmp_path / name / file) for name in ("collected", "in-place"))
        assert one.keys() == two.keys()
        for name, weights in one.items():
            torch.testing.assert_close(weights, two[name], rtol=0, atol=1e-6)


def test_what_cannot_be_written_leaves_the_earlier_result_as_it_was(
    trained: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = trained
    save_stage(tmp_path / "out", spread(model), tokenizer, str(tmp_path / "start"))
    before = (tmp_path / "out" / "merged" / "model.safetensors").read_bytes()

    def full(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tokenizer, "save_pretrained", full)
    with pytest.raises(TrainingError, match=r"adapter cannot be written .*No space left on device.*--resume"):
        save_stage(tmp_path / "out", spread(model), tokenizer, str(tmp_path / "start"))
    assert (tmp_path / "out" / "merged" / "model.safetensors").read_bytes() == before
    assert not list((tmp_path / "out").glob(".*"))
