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
from trainer.stages import model_io as adapter
from trainer.stages.run_record import common_record

MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def add_adapter(model: str | Path, rank: int, layers: int) -> Any:
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


def save_adapter(out: Path, model: Any, tokenizer: Any) -> None:
    """Write `adapter/` and `merged/`, each whole or not at all; the model is merged in place.

    Raises:
        TrainingError: one cannot be written; what was written of it is removed.
    """
    with is_complete(out / "adapter") as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)  # so that the adapter can be served as it is
    with is_complete(out / "merged") as folder:
        model.merge_and_unload().save_pretrained(folder)
        tokenizer.save_pretrained(folder)


@contextmanager
def is_complete(folder: Path) -> Iterator[Path]:
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


def load_tokenizer(model: str) -> Any:
    from transformers import AutoTokenizer

    if Path(model).is_dir() and not (Path(model) / "config.json").is_file():
        raise TrainingError(f"'{model}' is not a model folder (it has no config.json)")
    try:
        return AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise TrainingError(
            f"the model '{model}' cannot be loaded ({first}): pass the folder of the checkpoint that sampled"
        ) from None


@contextmanager
def weights_digest(model: str | Path) -> Iterator[None]:
    """Within the block a model's weights are read; broken ones are named."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        raise TrainingError(
            f"the weights of the model '{model}' cannot be read ({error}): copy or download them anew"
        ) from None


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
            adapter.save_adapter(out, trainer.model, tokenizer)
        return
    state = trainer.accelerator.get_state_dict(trainer.model)
    if not trainer.accelerator.is_main_process:
        return
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    unwrapped = trainer.accelerator.unwrap_model(trainer.model)
    with adapter.is_complete(out / "adapter") as folder:
        unwrapped.save_pretrained(folder, state_dict=state)
        tokenizer.save_pretrained(folder)
    base = AutoModelForCausalLM.from_pretrained(model, dtype="auto", device_map="cpu")
    with adapter.is_complete(out / "merged") as folder:
        PeftModel.from_pretrained(base, out / "adapter").merge_and_unload().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
