"""An adapter covers all projections of the top layers in every model family, and the loss is exact."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.fakes.episodes.log import make_episode, write_log
from tests.fakes.models.tiny_families import FAMILIES, save_tiny_model
from trainer.errors import TrainingError
from trainer.stages.sft.stage import SFTSettings, run_sft

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
LAYER = re.compile(r"(?P<stack>.*?layers)\.(?P<index>\d+)\.(?P<module>.*)\.weight$")
SEPARATE = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
EXPECTED = {
    "phi3": {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"},
    "gpt-oss": {"q_proj", "k_proj", "v_proj", "o_proj"},
    "qwen3-moe": {"q_proj", "k_proj", "v_proj", "o_proj"},
    "neox": {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"},
}


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return {k: v for file in sorted(folder.glob("*.safetensors")) for k, v in load_file(file).items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_changes_every_projection_of_the_top_layers_and_nothing_else(
    family: str, tmp_path: Path
) -> None:
    model = save_tiny_model(tmp_path / "model", family)
    episodes = [make_episode(f"p{n}", answer="Yes.", consult=n % 2 == 0) for n in range(4)]
    log = write_log(tmp_path / "log.jsonl", episodes)
    settings = SFTSettings(
        model=model,
        out=tmp_path / "run",
        demonstrations=log,
        epochs=4,
        learning_rate=1e-2,
        batch_size=4,
        lora_layers=2,
    )
    run_sft(settings, notify=lambda _: None)

    before, after = weights(model), weights(tmp_path / "run" / "merged")
    assert before.keys() == after.keys()
    changed = [LAYER.match(name) for name in before if not torch.equal(before[name], after[name])]
    assert {match["stack"] for match in changed if match} in (
        {"model.layers"},
        {"gpt_neox.layers"},
        {"language_model.model.layers"},
        {"model.language_model.layers"},
    )
    assert None not in changed  # no embedding, norm or vision tower
    assert {match["index"] for match in changed if match} == {"2", "3"}
    modules = {match["module"].rpartition(".")[2] for match in changed if match}
    assert modules == EXPECTED.get(family, SEPARATE)
    assert len(changed) == 2 * len(modules)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_is_that_of_the_models_own_logits(family: str, tmp_path: Path) -> None:
    """Granite divides logits, Gemma 2 caps them."""
    from transformers import AutoModelForCausalLM

    from trainer.stages.sft.trainer import IGNORE_INDEX, SupervisedTrainer

    network: Any = AutoModelForCausalLM.from_pretrained(
        save_tiny_model(tmp_path / "model", family), dtype="float32"
    ).eval()
    head = network.get_output_embeddings().weight
    head.data = torch.randn_like(head)  # logits of a random model are near zero
    ids = torch.randint(5, 300, (2, 12), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 9:] = 0
    labels = ids.clone()
    labels[:, :6] = IGNORE_INDEX
    labels[1, 8:] = IGNORE_INDEX
    accelerator = SimpleNamespace(unwrap_model=lambda model: model)
    trainer: Any = SimpleNamespace(accelerator=accelerator)
    inputs = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    with torch.no_grad():
        loss = SupervisedTrainer.compute_loss(trainer, network, inputs)
        logits = network(input_ids=ids, attention_mask=mask).logits[:, :-1]
    expected = torch.nn.functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1), ignore_index=IGNORE_INDEX
    )
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_a_model_without_a_list_of_layers_is_refused_with_the_alternative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainer.models.adapter_layers import adapter_layers

    model = save_tiny_model(tmp_path / "model", "qwen3")
    monkeypatch.setattr("trainer.models.adapter_layers._layers_path", lambda *_: None)
    with pytest.raises(TrainingError, match="train all weights with lora_rank 0"):
        adapter_layers(model, 2)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_memory_estimate_reads_the_shape_of_the_language_model(family: str, tmp_path: Path) -> None:
    from trainer.orchestration.gpu_memory import model_shape

    if family == "neox":
        return  # another form of feed-forward layers
    folder = save_tiny_model(tmp_path / "model", family)
    shape = model_shape(str(folder))
    assert shape is not None
    assert (shape.layers, shape.hidden, shape.head_size) == (4, 32, 8)
    assert shape.experts == (4 if family in ("gpt-oss", "qwen3-moe") else 0)
    language = {k: v for k, v in weights(folder).items() if "vision" not in k and "projector" not in k}
    stored = sum(tensor.numel() for tensor in language.values())
    assert shape.parameters == pytest.approx(stored, rel=0.06)
