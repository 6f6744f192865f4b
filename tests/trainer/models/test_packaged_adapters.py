"""The packaged adapters: their size and digests, and that packing keeps what training changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.fakes.models.tiny_llama import save_tiny_llama
from trainer.cli.app import app
from trainer.errors import LocalModelError
from trainer.models import packaged_adapters
from trainer.models.packaged_adapters import NAMES, WEIGHTS, adapter_folder, merge_adapter, pack_adapter

MAX_BYTES = 4_000_000


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny model, and the same model after a change of low rank to its two top layers."""
    import torch
    from transformers import AutoModelForCausalLM

    root = tmp_path_factory.mktemp("models")
    base = save_tiny_llama(root / "base")
    model = AutoModelForCausalLM.from_pretrained(base)
    torch.manual_seed(1)
    with torch.no_grad():
        for layer in model.model.layers[1:]:
            for weight in (layer.self_attn.q_proj.weight, layer.mlp.down_proj.weight):
                weight += 0.1 * torch.randn(weight.shape[0], 3) @ torch.randn(3, weight.shape[1])
    model.save_pretrained(root / "trained")
    return base, root / "trained"


def test_a_packed_adapter_gives_back_what_training_changed(models: tuple[Path, Path], tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    base, trained = models
    assert pack_adapter(base, trained, "cold-start", tmp_path, rank=4) < 1e-9
    merged = merge_adapter(base, "cold-start", tmp_path).state_dict()
    for name, weight in AutoModelForCausalLM.from_pretrained(trained).state_dict().items():
        torch.testing.assert_close(merged[name], weight, rtol=0, atol=2e-3)
    assert (
        pack_adapter(base, trained, "cold-start", tmp_path, rank=1) > 0.1
    )  # returns the share that the rank cuts off


def test_an_adapter_with_other_bytes_than_recorded_is_refused(
    models: tuple[Path, Path], tmp_path: Path
) -> None:
    pack_adapter(*models, "locked-in", tmp_path)
    weights = tmp_path / "locked-in" / WEIGHTS
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(LocalModelError, match=r"has the SHA-256 .* is expected: reinstall ascl"):
        merge_adapter(models[0], "locked-in", tmp_path)
    weights.unlink()
    with pytest.raises(LocalModelError, match="is missing: reinstall ascl"):
        adapter_folder("locked-in", tmp_path)


def test_models_without_a_difference_are_not_packed(models: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(LocalModelError, match="nothing was trained"):
        pack_adapter(models[0], models[0], "cold-start", tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_a_packaged_adapter_is_small_complete_and_in_half_precision(name: str) -> None:
    from safetensors import safe_open

    folder = adapter_folder(name)
    assert sum(file.stat().st_size for file in folder.iterdir()) <= MAX_BYTES
    config = json.loads((folder / packaged_adapters.CONFIG).read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == packaged_adapters.BASE_MODEL
    with safe_open(folder / WEIGHTS, framework="pt") as weights:
        assert {weights.get_slice(key).get_dtype() for key in weights.keys()} == {"F16"}  # noqa: SIM118


def test_an_unknown_adapter_is_named_before_the_model_is_converted(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["local-model", "--dir", str(tmp_path / "m"), "--adapter", "warm"])
    assert result.exit_code == 1
    assert "no packaged adapter 'warm': choose one of cold-start, locked-in" in result.stderr
    assert not (tmp_path / "m").exists()
