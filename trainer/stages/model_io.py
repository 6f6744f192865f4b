"""What both training stages share: an adapter on the top layers, and what a stage leaves behind.

A stage's folder holds `adapter/` (PEFT), `merged/` (a plain model folder to serve) and `run.json`, written
last: where it stands, the rest is whole.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from trainer.errors import TrainingError
from trainer.record import common_record

MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


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
    """Write `adapter/` and `merged/`, each whole or not at all; the model is merged in place.

    Raises:
        TrainingError: one cannot be written; what was written of it is removed.
    """
    with whole(out / "adapter") as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)  # so that the adapter can be served as it is
    with whole(out / "merged") as folder:
        model.merge_and_unload().save_pretrained(folder)
        tokenizer.save_pretrained(folder)


@contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """A folder to write to, which takes the place of `folder` when the block ends well."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        yield partial
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    except (OSError, RuntimeError, SafetensorError) as error:
        cause = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise TrainingError(
            f"{folder} cannot be written ({cause}): make room there, then run the same command again, with "
            "--resume where it has that option"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def save_record(out: Path, record: dict[str, Any]) -> None:
    """Write `run.json` in one step: the record and what every stage's says (see `trainer.record`)."""
    record |= common_record()
    partial = out / ".run.json.tmp"
    partial.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    partial.replace(out / "run.json")
