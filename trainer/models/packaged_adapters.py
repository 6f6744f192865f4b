"""Adapters of SmolLM2-135M that are part of the package, so that nobody has to train a cold start first.

- `cold-start` consults the rules about most delicate prompts, and follows the rule that it read.
- `locked-in` consults about nearly every prompt, a habit that training must be able to unlearn.

Each is a PEFT folder in half precision, cut to a low rank. `adapters.json` has the digests of its files.

    python -m trainer.models.packaged_adapters --name cold-start --base .cache/models/smollm2-135m \\
        --merged runs/demo-full/follows-rules

packs the difference between a trained model and its base. docs/guides/training.md lists all commands.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any

from evaluation.runtime import write_atomic
from trainer.errors import LocalModelError

FOLDER = Path(__file__).parent / "adapters"
MANIFEST = "adapters.json"
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
NAMES = ("cold-start", "locked-in")
MAX_BYTES = 3_950_000
"""Size of the factors of an adapter, which determines its rank; with names and settings it is below 4 MB."""
BASE_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
_LAYER = re.compile(r"model\.layers\.(\d+)\.\w+\.(\w+)\.weight")


def adapter_folder(name: str, folder: Path = FOLDER) -> Path:
    """Returns the folder of a packaged adapter, after checking the digests of its files.

    Raises:
        LocalModelError: there is no such adapter, or a file is missing or differs.
    """
    digests = _manifest(folder).get(name)
    if digests is None:
        raise LocalModelError(f"there is no packaged adapter '{name}': choose one of {', '.join(NAMES)}")
    for file, expected in digests["sha256"].items():
        path = folder / name / file
        remedy = "reinstall ascl, or pack the adapter again (see docs/guides/training.md)"
        if not path.is_file():
            raise LocalModelError(f"{path} is missing: {remedy}")
        if (found := _digest(path)) != expected:
            raise LocalModelError(
                f"{path} has the SHA-256 {found[:12]}..., but {expected[:12]}... is expected: {remedy}"
            )
    return folder / name


def adapter_digest(name: str, folder: Path = FOLDER) -> str:
    """Returns the recorded digest of an adapter's weights, which identifies it.

    Raises:
        LocalModelError: there is no such adapter.
    """
    if (entry := _manifest(folder).get(name)) is None:
        raise LocalModelError(f"there is no packaged adapter '{name}': choose one of {', '.join(NAMES)}")
    return str(entry["sha256"][WEIGHTS])


def merge_adapter(base: Path, name: str, folder: Path = FOLDER) -> Any:
    """Returns a model with a packaged adapter merged into its weights.

    Args:
        base: folder of the untrained model, in float32.

    Raises:
        LocalModelError: see `adapter_folder`.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    source = adapter_folder(name, folder)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return PeftModel.from_pretrained(model, source).merge_and_unload()


def pack_adapter(
    base: Path, merged: Path, name: str, folder: Path = FOLDER, rank: int | None = None
) -> float:
    """Writes an adapter of the difference between two models, in half precision, and records its digests.

    Args:
        base: folder of the untrained model.
        merged: folder of the trained model.
        name: name of the adapter.
        folder: folder of the adapters.
        rank: rank of the adapter; None for the highest one within `MAX_BYTES`.

    Returns:
        The share of the difference (squared norm) that the rank cuts off.

    Raises:
        LocalModelError: the models have no common base, or do not differ.
    """
    import torch
    from peft import LoraConfig
    from safetensors.torch import save

    changes = _changes(base, merged)
    if rank is None:
        rank = MAX_BYTES // (2 * sum(sum(change.shape) for change in changes.values()))
        rank = min(max(1, rank), *(min(change.shape) for change in changes.values()))
    factors: dict[str, torch.Tensor] = {}
    total = lost = 0.0
    for key, change in changes.items():
        u, s, v = torch.linalg.svd(change, full_matrices=False)
        root = s[:rank].sqrt()
        prefix = f"base_model.model.{key.removesuffix('.weight')}"
        factors[f"{prefix}.lora_A.weight"] = (root[:, None] * v[:rank]).half().contiguous()
        factors[f"{prefix}.lora_B.weight"] = (u[:, :rank] * root).half().contiguous()
        total += float(s.square().sum())
        lost += float(s[rank:].square().sum())
    places = [_LAYER.fullmatch(key) for key in changes]
    modules = {place[2] for place in places if place}
    layers = {int(place[1]) for place in places if place}
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules=sorted(modules),
        layers_to_transform=sorted(layers),
        layers_pattern="layers",
        task_type="CAUSAL_LM",
        base_model_name_or_path=BASE_MODEL,
        inference_mode=True,
    ).to_dict()
    text = json.dumps({key: _plain(value) for key, value in sorted(config.items())}, indent=2) + "\n"
    write_atomic(folder / name / WEIGHTS, save(factors), private=False)
    write_atomic(folder / name / CONFIG, text, private=False)
    entry = {"sha256": {file: _digest(folder / name / file) for file in (WEIGHTS, CONFIG)}}
    entries = _manifest(folder) | {name: entry | {"rank": rank, "cut_off": round(lost / total, 6)}}
    write_atomic(folder / MANIFEST, json.dumps(entries, indent=2, sort_keys=True) + "\n", private=False)
    return lost / total


def _changes(base: Path, merged: Path) -> dict[str, Any]:
    """Returns the difference of every weight that training changed, in float32.

    Raises:
        LocalModelError: see `pack_adapter`.
    """
    from safetensors import safe_open

    changes = {}
    with (
        safe_open(base / "model.safetensors", framework="pt") as first,
        safe_open(merged / "model.safetensors", framework="pt") as second,
    ):
        if set(first.keys()) != set(second.keys()):
            raise LocalModelError(f"{merged} was not trained from {base}: their weights have different names")
        for key in sorted(first.keys()):
            change = second.get_tensor(key).float() - first.get_tensor(key).float()
            if not change.any():
                continue
            if _LAYER.fullmatch(key) is None:
                raise LocalModelError(f"{key} differs, but an adapter covers only linear modules of layers")
            changes[key] = change
    if not changes:
        raise LocalModelError(f"{merged} does not differ from {base}: nothing was trained")
    return changes


def _plain(value: Any) -> Any:
    """Converts sets and enumerations to JSON values in a fixed order."""
    if isinstance(value, set):
        return sorted(value)
    return getattr(value, "value", value)


def _manifest(folder: Path) -> dict[str, Any]:
    file = folder / MANIFEST
    if not file.is_file():
        return {}
    entries: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return entries


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--name", required=True, choices=NAMES, help="adapter to replace")
    parser.add_argument("--base", type=Path, required=True, help="folder of the untrained model")
    parser.add_argument("--merged", type=Path, required=True, help="folder of the trained model")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the adapters")
    options = parser.parse_args()
    try:
        lost = pack_adapter(options.base, options.merged, options.name, options.out)
    except (LocalModelError, OSError) as error:
        sys.exit(f"packaged_adapters: {error}")
    size = (options.out / options.name / WEIGHTS).stat().st_size
    print(f"{options.out / options.name}: {size / 1e6:.2f} MB, {100 * lost:.2f} % of the change cut off")


if __name__ == "__main__":
    main()
