"""The stage `logged`: train an adapter on logged episodes by IFPO, GRPO, or GRPO with a price on consulting.

Outputs: `adapter/` (PEFT), `merged/` (a plain model folder to serve) and `run.json` (settings, versions, what
was left out, figures of every step), written last: where it stands, the rest is whole.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.prompts import KINDS
from trainer.errors import TrainingError
from trainer.groups.parquet import read_groups
from trainer.stages import checkpoints as resuming
from trainer.stages import model_io as adapter
from trainer.stages.logged.dataset import _dataset, _has_logprobs, _one_temperature
from trainer.stages.model_io import load_tokenizer, weights_digest
from trainer.stages.progress import Notify, make_notifier, silence_libraries, step_reporter

if TYPE_CHECKING:
    from trainer.stages.logged.config import LoggedArguments, LoggedConfig

RECORDED_METRICS = (
    *("loss", "grad_norm", "reward", "reward_std", "entropy", "clip_ratio/region_mean", "kl"),
    *("logged/kl", "logged/mean_ratio", "logged/largest_ratio", "logged/dropped"),
    *(f"logged/towards_consulting/{kind}" for kind in (*KINDS, "other")),
)

TELL = make_notifier("logged")


def run_logged(arguments: LoggedArguments, config: LoggedConfig, tell: Notify = TELL) -> dict[str, Any]:
    """Train, save, and return what `run.json` holds. Of several processes, the first tells and saves.

    Raises:
        TrainingError: the model cannot be loaded, no episode can be learnt from, the log's log-probabilities
            are not the model's, or something cannot be saved.
        GroupError: the file of groups cannot be read.
    """
    with silence_libraries():
        return _run(arguments, config, tell)


def _run(arguments: LoggedArguments, config: LoggedConfig, tell: Notify) -> dict[str, Any]:
    from trainer.stages.logged.credit import assign_credit
    from trainer.stages.logged.dataset import COLUMNS, select_trainable
    from trainer.stages.model_io import save_stage

    started = time.perf_counter()
    first = config.process_index == 0
    say: Notify = tell if first else lambda line: None
    out = Path(config.output_dir)
    columns, about = read_groups(Path(arguments.groups), COLUMNS)
    versions = sorted(set(columns["policy_version"]))
    if len(versions) > 1 and arguments.behaviour == "model":
        raise TrainingError(
            f"the episodes were sampled by the policies {', '.join(versions)}, but the model is one of them, "
            "and its log-probabilities cannot stand in for all: prepare the log of one, or set behaviour to "
            "'other' if they may"
        )
    config.temperature = _one_temperature(columns["temperature"], say)
    left_out: Counter[str] = Counter()
    tokenizer = load_tokenizer(arguments.model)
    earned = assign_credit(columns, about["settings"], arguments, config)
    rows = select_trainable(tokenizer, columns, earned, arguments, left_out)
    if not rows:
        raise TrainingError(f"no episode in {arguments.groups} can be learnt from ({_causes(left_out)})")
    data = {
        "groups_sha256": hashlib.sha256(Path(arguments.groups).read_bytes()).hexdigest(),
        "policy_versions": versions,
        "episodes": len(rows),
        "left_out": dict(sorted(left_out.items())),
        "sources": about["sources"],
    }
    plan = {"groups_sha256": data["groups_sha256"], **asdict(arguments), **_training(config)}
    checkpoint = _checkpoint(out, plan, arguments.resume, first, config)
    wrote = sum(sum(row["wrote"]) for row in rows)
    say(
        f"learning from {len(rows)} episodes, {wrote} tokens of the policy; "
        f"left out: {_causes(left_out) or 'none'}"
    )
    trainer, guards, known = _trainer(arguments, config, tokenizer, rows, columns, about, say)
    if arguments.resume:
        say(f"going on from {checkpoint}" if checkpoint else f"{out} holds no checkpoint: starting anew")
    with step_reporter(say, _figures, shown=first) as reporter:
        trainer.add_callback(reporter)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    drift, floor = guards
    run = {
        "stage": "logged",
        "method": arguments.method,
        "arguments": asdict(arguments),
        "advantages": about["settings"],
        "training": _training(config),
        "data": data,
        **known,
        "stopped": drift.stopped or (floor.stopped if floor else None),
        "floor": floor.readings if floor else [],
        "steps": [
            {"step": entry["step"], **{name: entry[name] for name in RECORDED_METRICS if name in entry}}
            for entry in trainer.state.log_history
            if "loss" in entry
        ],
        "seconds": round(time.perf_counter() - started, 1),
    }
    if first:
        resuming.forget_record(out)
    save_stage(out, trainer, tokenizer, arguments.model)
    if first:
        adapter.save_record(out, run)
    trainer.accelerator.wait_for_everyone()
    return run


def _causes(left_out: Counter[str]) -> str:
    return ", ".join(f"{cause}: {count}" for cause, count in sorted(left_out.items()))


def _checkpoint(
    out: Path, plan: dict[str, Any], resume: bool, first: bool, config: LoggedConfig
) -> Path | None:
    plan = {name: value for name, value in plan.items() if name not in ("resume", "output_dir")}
    with config.main_process_first(local=False, desc="plan"):
        return resuming.begin_or_resume(out, plan, resume, first)


def _trainer(
    arguments: LoggedArguments,
    config: LoggedConfig,
    tokenizer: Any,
    rows: list[dict[str, Any]],
    columns: dict[str, list[Any]],
    about: dict[str, Any],
    say: Notify,
) -> tuple[Any, tuple[Any, Any], dict[str, Any]]:
    """The trainer with its data, its guards, and what a run's record says of how the log was taken."""
    import transformers

    from trainer.stages.logged.behaviour_logprobs import checked_logprobs, with_behaviour_logprobs
    from trainer.stages.logged.dataset import decision_weights, trim_to_full_batches, with_token_advantages
    from trainer.stages.logged.guards import DriftGuard, FloorGuard
    from trainer.stages.logged.trainer import LoggedIFPOTrainer

    config.model_init_kwargs = {"dtype": "float32"} | (config.model_init_kwargs or {})
    batches = trim_to_full_batches(rows, config.generation_batch_size)
    drift = DriftGuard(arguments.max_drift, say)
    with weights_digest(arguments.model):
        trainer = LoggedIFPOTrainer(
            model=arguments.model,
            args=config,
            train_dataset=_dataset(batches),
            processing_class=tokenizer,
            peft_config=adapter.add_adapter(arguments.model, arguments.lora_rank, arguments.lora_layers),
            callbacks=[drift],
        )
    if trainer.is_fsdp_enabled:
        raise TrainingError(
            "logged episodes cannot be replayed under FSDP, which has no whole model before training begins: "
            "leave the FSDP configuration out, `ascl-train launch logged` shows how"
        )
    trainer.remove_callback(transformers.PrinterCallback)
    without = [row["episode"] for row in rows if row["logprobs"] is None]
    # A forced decision was not drawn from the policy, so such an episode's logged ones are not used.
    forced = sum(columns["forced"][i] and _has_logprobs(columns["turns"][i]) for i in without)
    text_only = len(without) - forced
    if len(without) < len(rows) and arguments.behaviour == "model" and arguments.check_logprobs:
        checked = checked_logprobs(trainer, rows, arguments.check_logprobs, arguments.logprob_tolerance)
    else:
        checked = None
    if without:
        whose = "the log has no" if text_only else "of forced episodes the log has not the policy's own"
        say(f"{whose} log-probabilities: computing them with the starting checkpoint")
        batches = with_behaviour_logprobs(trainer, batches)
    stratified = any(columns["forced"])
    consult: dict[str, float] = {}
    if stratified or arguments.credit == "split":
        weights = None
        if stratified:
            consult, weights = decision_weights(trainer, tokenizer, columns, arguments.mode_probability)
        batches = with_token_advantages(batches, weights)
    trainer.train_dataset = _dataset(batches)
    floor = _floor(arguments, tokenizer, columns)
    guard = FloorGuard(floor, say, trainer) if floor else None
    if guard:
        trainer.add_callback(guard)
    known = {
        "off_policy": {
            "text_only_episodes": text_only,
            "forced_episodes": forced,
            "behaviour_logprobs": "recomputed with the starting checkpoint" if text_only else "logged",
            "largest_difference": checked,
        },
        "stratified": {
            "groups": len(consult),
            "mode_probability": arguments.mode_probability,
            "mean_consult_probability": round(sum(consult.values()) / len(consult), 4),
        }
        if stratified
        else None,
    }
    return trainer, (drift, guard), known


def _floor(arguments: LoggedArguments, tokenizer: Any, columns: dict[str, list[Any]]) -> Any:
    if arguments.floor_prompts is None:
        return None
    from trainer.stages.logged.floor import floor_of

    return floor_of(arguments, tokenizer, columns)


def _figures(logs: Mapping[str, float]) -> str:
    kl, clipped = logs.get("logged/kl", 0.0), logs.get("clip_ratio/region_mean", 0.0)
    return f"KL to the start {kl:.4f}, clipped {clipped:.1%}"


def _training(config: LoggedConfig) -> dict[str, Any]:
    """The settings that differ from the defaults, and those that everyone asks for."""
    from trainer.stages.logged.config import LoggedConfig as Config

    always = ("learning_rate", "loss_type", "beta", "epsilon", "num_train_epochs", "temperature", "seed")
    standard = asdict(Config(output_dir=config.output_dir))
    return {
        name: value
        for name, value in config.to_dict().items()
        if name in always or (name in standard and value != standard[name] and name != "logging_dir")
    }
