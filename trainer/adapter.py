"""What both training stages share: an adapter on the top layers, and what a stage leaves behind.

A stage's folder holds `adapter/` (PEFT), `merged/` (a plain model folder to serve) and `run.json`, written
last: where it stands, the rest is whole.
"""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
VERSIONS_OF = ["torch", "transformers", "trl", "peft", "datasets"]


def top_layers(model: str | Path, rank: int, layers: int) -> Any:
    """PEFT configuration of an adapter on the `layers` topmost layers of a model."""
    from peft import LoraConfig
    from transformers import AutoConfig

    depth = AutoConfig.from_pretrained(model).num_hidden_layers
    return LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=MODULES,
        layers_to_transform=list(range(max(0, depth - layers), depth)),
        task_type="CAUSAL_LM",
    )


def save(out: Path, model: Any, tokenizer: Any) -> None:
    """Write `adapter/` and `merged/`; the model is merged in place."""
    model.save_pretrained(out / "adapter")
    model.merge_and_unload().save_pretrained(out / "merged")
    tokenizer.save_pretrained(out / "merged")


def save_record(out: Path, record: dict[str, Any]) -> None:
    """Write `run.json` in one step."""
    partial = out / ".run.json.tmp"
    partial.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    partial.replace(out / "run.json")


def versions() -> dict[str, str]:
    """Of the libraries that a result depends on."""
    return {name: importlib.metadata.version(name) for name in VERSIONS_OF}
