"""Stage `sft`: cold start that teaches a model the form of a consultation, by TRL's `SFTTrainer`.

It trains a LoRA adapter on the top layers, or all weights, with demonstration episodes. Only what the
assistant wrote carries loss, not the prompt or the tool results. The result is a *starting point*: a model
that consults often and answers directly sometimes, so that IFPO has both modes to compare.

Outputs under `settings.out`: `adapter/` (PEFT, unless all weights were trained), `merged/` (a plain model
folder to serve) and `run.json` (settings, versions, digest of the data, losses, seconds), written last: a
folder with it is complete.
"""

import hashlib
import os
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from agent.episode import Episode, episode_messages, read_log
from trainer.errors import TrainingError
from trainer.models.template_check import template_problem
from trainer.models.token_embeddings import untrained_problem
from trainer.stages.checkpoints import remove_record
from trainer.stages.model_io import (
    adapter_of,
    check_model_folder,
    explain_unreadable_weights,
    resolve_lora_layers,
    save_record,
    save_weights,
)
from trainer.stages.monitoring import Notify, make_notifier, silence_libraries, step_reporter
from trainer.tokens import ModeLosses, RenderingError, turn_end_ids
from trainer.tokens.chat_template import on_day_of, sampled_options
from trainer.tokens.rendering import render_training_tokens

DEMONSTRATIONS = Path(__file__).parent / "demonstrations" / "demonstrations.jsonl"

NOTIFY = make_notifier("sft")
TOO_LONG = "longer than max_length"


class SFTSettings(BaseModel):
    """Settings of a cold start; the defaults suit SmolLM2-135M on two CPU cores."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    model: Path
    """Folder of the model to start from, with a chat template that marks the assistant's tokens."""
    out: Path
    """Folder for the results; created if missing."""
    demonstrations: Path = DEMONSTRATIONS
    """Episode log (JSON Lines) to learn from."""
    answer_share: float = Field(default=1.0, ge=0, le=1)
    """Share of the consulting demonstrations that are learnt to their end. The others stop after the call,
    which saves time; but a model that saw 35 % to the end consulted repeatedly and never answered."""
    epochs: float = Field(default=2.0, gt=0)
    """Number of times that each demonstration is learnt."""
    learning_rate: float = Field(default=8e-4, gt=0)
    """Peak learning rate. The default for all weights (`lora_rank` 0) is 2e-5, as in TRL."""
    batch_size: int = Field(default=4, ge=1)
    """Episodes per step."""
    lora_rank: int = 16
    """Rank of the adapter; 0 trains all weights, without an adapter."""
    lora_layers: int = 12
    """Number of layers with an adapter, counted from the top; 0 without an adapter."""
    max_length: int = Field(default=1024, ge=16)
    """Maximum episode length in tokens; longer ones are left out and counted, never truncated."""
    seed: int = 0
    """Seed of the data order and the adapter weights."""

    @model_validator(mode="before")
    @classmethod
    def _set_defaults_of_all_weights(cls, given: dict[str, Any]) -> dict[str, Any]:
        settings = dict(given)
        rank, layers = settings.get("lora_rank", 16), settings.get("lora_layers")
        if type(rank) is int and (layers is None or type(layers) is int):
            settings["lora_layers"] = resolve_lora_layers(rank, layers, default=12)
            if rank == 0:
                settings.setdefault("learning_rate", 2e-5)
        return settings


def run_sft(settings: SFTSettings, notify: Notify = NOTIFY) -> dict[str, Any]:
    """Trains, saves the results, and returns the contents of `run.json`.

    Raises:
        TrainingError: there is nothing to learn from, one mode loses much more of its demonstrations than the
            other (see `ModeLosses.problem`), or `model` is not a usable model folder.
        agent.LogError: the demonstrations cannot be read.
    """
    started = time.perf_counter()
    if settings.model.is_dir():
        check_model_folder(settings.model)
    if not (settings.model / "config.json").is_file():
        raise TrainingError(
            f"{settings.model} is not a model folder (it has no config.json): "
            "make one with `ascl-train local-model`, or pass the folder of another model."
        )
    episodes = _read_demonstrations(settings.demonstrations)
    # Idle OpenMP threads that spin cost more than half of the speed on a busy machine; torch reads this on
    # import.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with silence_libraries():
        return _run(settings, episodes, notify, started)


def _run(settings: SFTSettings, episodes: list[Episode], notify: Notify, started: float) -> dict[str, Any]:
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(settings.model)
    _check_template(tokenizer, episodes, settings, notify)
    rows, losses, longest = _tokenize(tokenizer, episodes, settings)
    left_out = Counter({cause: counts.total() for cause, counts in losses.by_cause.items()})
    if not rows:
        causes = ", ".join(f"{cause}: {count}" for cause, count in sorted(left_out.items()))
        raise TrainingError(
            f"None of the {len(episodes)} demonstrations in {settings.demonstrations} can be learnt from "
            f"({causes}): raise max_length, or use a chat template that can render them."
        )
    remedies = dict.fromkeys(losses.by_cause, "use a chat template that renders all of both modes")
    remedies[TOO_LONG] = f"raise --max_length from {settings.max_length} to {longest}"
    if problem := losses.problem(remedies):
        raise TrainingError(problem)
    if warning := losses.warning(remedies):
        notify(warning)
    trainer = _build_trainer(settings, tokenizer, rows)
    with step_reporter(notify, lambda logs: f"loss {logs['loss']:.3f}") as reporter:
        trainer.add_callback(reporter)
        trainer.train()
    remove_record(settings.out)
    save_weights(settings.out, trainer.model, tokenizer)
    record = {
        "stage": "sft",
        "settings": settings.model_dump(mode="json"),
        "data": {
            "sha256": hashlib.sha256(settings.demonstrations.read_bytes()).hexdigest(),
            "episodes": len(rows),
            "too_long": left_out[TOO_LONG],
            "left_out": dict(sorted(left_out.items())),
            "left_out_by_mode": losses.record(),
            "modes": Counter(f"{episode.kind}/{episode.mode}" for episode in episodes),
        },
        "losses": [
            {"step": entry["step"], "loss": entry["loss"]}
            for entry in trainer.state.log_history
            if "loss" in entry
        ],
        "steps": trainer.state.global_step,
        "tokens": trainer.state.num_input_tokens_seen,
        "seconds": round(time.perf_counter() - started, 1),
    }
    save_record(settings.out, record)
    return record


def _read_demonstrations(path: Path) -> list[Episode]:
    reading = read_log(path)
    if reading.skipped:
        first = reading.skipped[0]
        raise TrainingError(
            f"{path} holds {len(reading.skipped)} lines that are not episodes, first line "
            f"{first.line} ({first.reason}): correct or remove them."
        )
    episodes = [episode for episode in reading.episodes if episode.answer]
    if not episodes:
        raise TrainingError(f"{path} holds no episode with an answer, so there is nothing to learn from.")
    return episodes


def _tokenize(
    tokenizer: Any, episodes: list[Episode], settings: SFTSettings
) -> tuple[list[dict[str, Any]], ModeLosses, int]:
    """Returns training rows (`input_ids`, `assistant_masks`), what is left out, and the greatest length."""
    rng = random.Random(settings.seed)  # noqa: S311
    rows = []
    losses, longest = ModeLosses(), 0
    for episode in episodes:
        messages = episode.messages
        given = len(messages) - len(episode_messages(episode))
        losses.totals[episode.mode] += 1
        if episode.mode == "consult" and rng.random() >= settings.answer_share:
            replies = (index for index, message in enumerate(messages) if message["role"] == "assistant")
            messages = messages[: next(index for index in replies if index >= given) + 1]
        try:
            options = on_day_of(sampled_options(episode.sampling_sent), episode.started_at)
            ids, mask = render_training_tokens(tokenizer, messages, episode.tools, options, given=given)
        except RenderingError as cause:
            losses.leave_out(str(cause), episode.mode)
            continue
        longest = max(longest, len(ids))
        if len(ids) > settings.max_length:
            losses.leave_out(TOO_LONG, episode.mode)
            continue
        rows.append({"input_ids": ids, "assistant_masks": mask})
    return rows, losses, longest


def _check_template(tokenizer: Any, episodes: list[Episode], settings: SFTSettings, notify: Notify) -> None:
    """Raises a TrainingError unless the model's chat template can show, and the model learn, the calls."""
    model = settings.model
    consult = any(episode.mode == "consult" for episode in episodes)
    if problem := template_problem(tokenizer, consult=consult):
        raise TrainingError(f"{model} cannot be trained on these demonstrations: {problem}")
    with explain_unreadable_weights(model):
        problem = untrained_problem(model, tokenizer) if consult else None
    if problem and settings.lora_rank:
        raise TrainingError(f"{model} cannot learn to consult: {problem}, or train all weights (lora_rank 0)")
    if not turn_end_ids(tokenizer):
        notify(
            "the chat template does not end a reply with an end token, so the model may not learn to stop: "
            "add the tokenizer's end token after the reply in the template"
        )


def _build_trainer(settings: SFTSettings, tokenizer: Any, rows: list[dict[str, Any]]) -> Any:
    import datasets
    import transformers
    from trl import SFTConfig

    from trainer.stages.sft.trainer import SupervisedTrainer

    with explain_unreadable_weights(settings.model):
        model = transformers.AutoModelForCausalLM.from_pretrained(settings.model, dtype="float32")
    trainer = SupervisedTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(settings.out / "checkpoints"),
            num_train_epochs=settings.epochs,
            learning_rate=settings.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=4,
            per_device_train_batch_size=settings.batch_size,
            max_length=None,
            train_sampling_strategy="group_by_length",  # less padding
            bf16=False,
            gradient_checkpointing=False,
            dataloader_pin_memory=False,
            save_strategy="no",
            logging_steps=4,
            include_num_input_tokens_seen=True,
            report_to="none",
            disable_tqdm=True,
            seed=settings.seed,
        ),
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=adapter_of(settings),
    )
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer
