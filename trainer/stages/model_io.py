"""Models of the training stages: loading, the LoRA adapter, and saving the results.

A stage's folder holds `adapter/` (PEFT), unless it trained all weights, `merged/` (a plain model folder to
serve) and `run.json`. The record is written last, so a folder with `run.json` is complete.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from evaluation.runtime import write_atomic
from trainer.errors import TrainingError
from trainer.models.adapter_layers import adapter_layers
from trainer.stages.checkpoints import remove_record
from trainer.stages.run_record import common_record


def adapter_config(model: str | Path, rank: int, layers: int) -> Any:
    """Returns the PEFT configuration of a LoRA adapter on the top `layers` layers of a model.

    Raises:
        TrainingError: the model has no layers that an adapter can cover.
    """
    from peft import LoraConfig

    targets = adapter_layers(model, layers)
    return LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=targets.modules,
        layers_to_transform=targets.layers,
        layers_pattern=targets.pattern,
        exclude_modules=targets.exclude,
        task_type="CAUSAL_LM",
    )


def resolve_lora_layers(rank: int, layers: int | None, default: int) -> int:
    """Returns the number of layers with an adapter; 0 if all weights are trained (rank 0).

    Args:
        rank: `lora_rank` of a stage.
        layers: its `lora_layers`; None if it was not given, for `default`.

    Raises:
        ValueError: a negative rank, fewer than one layer, or layers of an adapter without an adapter.
    """
    if rank < 0:
        raise ValueError(
            f"lora_rank is {rank}, but it must be at least 0: 0 trains all weights, another number an "
            "adapter of that rank"
        )
    if rank == 0:
        if layers:
            raise ValueError(
                f"lora_rank 0 trains all weights, without an adapter, but lora_layers is {layers}: remove "
                "lora_layers, or set lora_rank to the rank of the adapter"
            )
        return 0
    if layers is not None and layers < 1:
        raise ValueError(
            f"lora_layers is {layers}, but it must be at least 1 (lora_rank 0 trains all weights)"
        )
    return default if layers is None else layers


def adapter_of(arguments: Any) -> Any:
    """Returns the PEFT configuration of a stage's `model`, `lora_rank` and `lora_layers`; None for rank 0."""
    if not arguments.lora_rank:
        return None
    return adapter_config(arguments.model, arguments.lora_rank, arguments.lora_layers)


def precision_warning(arguments: Any, config: Any) -> str | None:
    """Returns a warning if all weights are trained in 16 bits, which rounds small updates away, or None.

    Args:
        config: `transformers.TrainingArguments`; FSDP keeps a float32 copy of such weights.
    """
    dtype = str((config.model_init_kwargs or {}).get("dtype", "float32")).removeprefix("torch.")
    if arguments.lora_rank or dtype not in ("bfloat16", "float16") or _uses_fsdp():
        return None
    return (
        f"all weights are trained in {dtype} (model_init_kwargs), which rounds updates below about 0.2 % of "
        "a weight to zero: leave out dtype to train in float32"
    )


def _uses_fsdp() -> bool:
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true")


def load_tokenizer(model: str) -> Any:
    """Loads the tokenizer of a model folder or hub name.

    Raises:
        TrainingError: the folder has no model, or the tokenizer cannot be loaded.
    """
    from transformers import AutoTokenizer

    check_model_folder(model)
    try:
        return AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise TrainingError(
            f"the model '{model}' cannot be loaded ({first}): pass the folder of the checkpoint that sampled"
        ) from None


def check_model_folder(model: str | Path) -> None:
    """Checks that a folder holds a model; any other name is left to the hub.

    Raises:
        TrainingError: it holds an adapter, or no model.
    """
    folder = Path(model)
    if (folder / "adapter_config.json").is_file():
        raise TrainingError(
            f"'{model}' is an adapter, not a model: pass the folder of the merged model, such as "
            f"'{folder.parent / 'merged'}'"
        )
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise TrainingError(f"'{model}' is not a model folder (it has no config.json)")


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

    Without an adapter (`lora_rank` 0), all weights are trained. If the loss needs a reference model (`beta`
    above 0), TRL loads the starting model a second time, where it would otherwise disable the adapter.

    Args:
        arguments: arguments of the stage: `model`, `lora_rank` and `lora_layers`.
        options: further arguments of `trainer_class`.
    """
    import transformers

    config.model_init_kwargs = {"dtype": "float32"} | (config.model_init_kwargs or {})
    with explain_unreadable_weights(arguments.model):
        trainer = trainer_class(
            model=arguments.model,
            args=config,
            processing_class=tokenizer,
            peft_config=adapter_of(arguments),
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


def save_all_weights(out: Path, model: Any, tokenizer: Any, state: dict[str, Any] | None = None) -> None:
    """Writes `merged/` atomically, for a model without an adapter, and removes an earlier run's `adapter/`.

    Args:
        state: the weights, if the model's own are sharded.

    Raises:
        TrainingError: it cannot be written.
    """
    shutil.rmtree(out / "adapter", ignore_errors=True)
    with atomic_folder(out / "merged") as folder:
        model.save_pretrained(folder, **({} if state is None else {"state_dict": state}))
        tokenizer.save_pretrained(folder)


def save_weights(out: Path, model: Any, tokenizer: Any) -> None:
    """Calls `save_adapter`, or `save_all_weights` for a model without an adapter."""
    save = save_adapter if hasattr(model, "merge_and_unload") else save_all_weights
    save(out, model, tokenizer)


def save_record(out: Path, record: dict[str, Any]) -> None:
    """Writes `run.json` atomically, and adds to `record` the fields of `run_record.common_record`."""
    record |= common_record()
    write_atomic(out / "run.json", json.dumps(record, indent=2) + "\n", private=False)


def save_stage(out: Path, trainer: Any, tokenizer: Any, model: str) -> None:
    """Writes `merged/` and, if the model has an adapter, `adapter/`. Every process must call it.

    A model that the trainer shards (FSDP) cannot be merged in place: its adapter is gathered, and merged into
    the starting model, which is loaded again.

    Args:
        model: the checkpoint that training started from.

    Raises:
        TrainingError: one of them cannot be written.
    """
    if not trainer.is_fsdp_enabled:
        if trainer.accelerator.is_main_process:
            save_weights(out, trainer.model, tokenizer)
        return
    state = trainer.accelerator.get_state_dict(trainer.model)
    if not trainer.accelerator.is_main_process:
        return
    unwrapped = trainer.accelerator.unwrap_model(trainer.model)
    if not hasattr(unwrapped, "merge_and_unload"):
        save_all_weights(out, unwrapped, tokenizer, state)
        return
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    with atomic_folder(out / "adapter") as folder:
        unwrapped.save_pretrained(folder, state_dict=state)
        tokenizer.save_pretrained(folder)
    base = AutoModelForCausalLM.from_pretrained(model, dtype="auto", device_map="cpu")
    with atomic_folder(out / "merged") as folder:
        PeftModel.from_pretrained(base, out / "adapter").merge_and_unload().save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def save_results(out: Path, trainer: Any, tokenizer: Any, model: str, record: dict[str, Any]) -> None:
    """Writes the weights (see `save_stage`), then `run.json`, in place of an earlier run's. Every process
    must call it.

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
