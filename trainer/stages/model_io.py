"""Models of the training stages: loading, the LoRA adapter, and saving the results.

A stage's folder holds `adapter/` (PEFT), `merged/` (a plain model folder to serve) and `run.json`. The record
is written last, so a folder with `run.json` is complete.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from evaluation.runtime import write_atomic
from trainer.errors import TrainingError
from trainer.stages.checkpoints import remove_record
from trainer.stages.run_record import common_record

ADAPTED_MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def adapter_config(model: str | Path, rank: int, layers: int) -> Any:
    """Returns the PEFT configuration of a LoRA adapter on the top `layers` layers of a model."""
    from peft import LoraConfig
    from transformers import AutoConfig

    depth = AutoConfig.from_pretrained(model).num_hidden_layers
    return LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=ADAPTED_MODULES,
        layers_to_transform=list(range(max(0, depth - layers), depth)),
        task_type="CAUSAL_LM",
    )


def load_tokenizer(model: str) -> Any:
    """Loads the tokenizer of a model folder or hub name.

    Raises:
        TrainingError: the folder has no model, or the tokenizer cannot be loaded.
    """
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
def explain_unreadable_weights(model: str | Path) -> Iterator[None]:
    """Turns a safetensors error within the block into a `TrainingError` that names the model."""
    try:
        yield
    except SafetensorError as error:
        raise TrainingError(
            f"the weights of the model '{model}' cannot be read ({error}): copy or download them again"
        ) from None


def build_trainer(trainer_class: Any, arguments: Any, config: Any, tokenizer: Any, **options: Any) -> Any:
    """Builds a TRL trainer of a model in float32 with a new adapter; it prints nothing by itself.

    Args:
        arguments: of the stage: `model`, `lora_rank` and `lora_layers`.
        options: further arguments of `trainer_class`.
    """
    import transformers

    config.model_init_kwargs = {"dtype": "float32"} | (config.model_init_kwargs or {})
    with explain_unreadable_weights(arguments.model):
        trainer = trainer_class(
            model=arguments.model,
            args=config,
            processing_class=tokenizer,
            peft_config=adapter_config(arguments.model, arguments.lora_rank, arguments.lora_layers),
            **options,
        )
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yields a temporary folder to write to, which replaces `folder` when the block succeeds.

    Raises:
        TrainingError: it cannot be written; it is removed, and `folder` stays unchanged.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        yield partial
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    except (OSError, RuntimeError, SafetensorError) as error:
        cause = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise TrainingError(
            f"{folder} cannot be written ({cause}): free disk space there, then rerun the same command, "
            "with --resume if it has that option"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def save_adapter(out: Path, model: Any, tokenizer: Any) -> None:
    """Writes `adapter/` and `merged/`, each atomically; merges the model in place.

    Raises:
        TrainingError: one of them cannot be written.
    """
    with atomic_folder(out / "adapter") as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)  # so that servers can load the adapter by itself
    with atomic_folder(out / "merged") as folder:
        model.merge_and_unload().save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def save_record(out: Path, record: dict[str, Any]) -> None:
    """Writes `run.json` atomically, and adds to `record` the fields of `run_record.common_record`."""
    record |= common_record()
    write_atomic(out / "run.json", json.dumps(record, indent=2) + "\n", private=False)


def save_stage(out: Path, trainer: Any, tokenizer: Any, model: str) -> None:
    """Writes `adapter/` and `merged/`. Every process must call it.

    A model that the trainer shards (FSDP) cannot be merged in place: its adapter is gathered, and merged into
    the starting model, which is loaded again.

    Args:
        model: the checkpoint that training started from.

    Raises:
        TrainingError: one of them cannot be written.
    """
    if not trainer.is_fsdp_enabled:
        if trainer.accelerator.is_main_process:
            save_adapter(out, trainer.model, tokenizer)
        return
    state = trainer.accelerator.get_state_dict(trainer.model)
    if not trainer.accelerator.is_main_process:
        return
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    unwrapped = trainer.accelerator.unwrap_model(trainer.model)
    with atomic_folder(out / "adapter") as folder:
        unwrapped.save_pretrained(folder, state_dict=state)
        tokenizer.save_pretrained(folder)
    base = AutoModelForCausalLM.from_pretrained(model, dtype="auto", device_map="cpu")
    with atomic_folder(out / "merged") as folder:
        PeftModel.from_pretrained(base, out / "adapter").merge_and_unload().save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def save_results(out: Path, trainer: Any, tokenizer: Any, model: str, record: dict[str, Any]) -> None:
    """Writes `adapter/`, `merged/`, then `run.json`, in place of an earlier run's. Every process must call
    it.

    Args:
        model: the checkpoint that training started from.

    Raises:
        TrainingError: one of them cannot be written.
    """
    main_process = trainer.accelerator.is_main_process
    if main_process:
        remove_record(out)
    save_stage(out, trainer, tokenizer, model)
    if main_process:
        save_record(out, record)
    trainer.accelerator.wait_for_everyone()
