"""Stage `logged`: trains on logged episodes by IFPO, GRPO, or GRPO with a cost per consultation.

Outputs: `adapter/` (PEFT, unless all weights were trained), `merged/` (a plain model folder to serve),
`run.json` (settings, versions, counts of episodes left out, metrics of every step). The record is written
last, so a folder with it is complete.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.prompts import KINDS
from trainer.errors import TrainingError
from trainer.groups.parquet import template_options_of
from trainer.groups.statistics import group_statistics
from trainer.models.log_template import log_template_problem
from trainer.stages.checkpoints import begin_or_resume_together
from trainer.stages.logged.dataset import (
    LoggedDataset,
    LoggedGroups,
    build_dataset,
    check_mode_losses,
    read_logged_groups,
    score_dataset,
)
from trainer.stages.logged.dataset.tokenized import remove_tokens, tokens_removed_on_error
from trainer.stages.model_io import build_trainer, load_tokenizer, precision_warning, save_results
from trainer.stages.monitoring import (
    Notify,
    SafetyFloor,
    make_notifier,
    notify_from_rank_zero,
    silence_libraries,
    step_reporter,
)
from trainer.stages.run_record import changed_settings

if TYPE_CHECKING:
    from trainer.stages.logged.config import LoggedArguments, LoggedConfig
    from trainer.stages.logged.guards import Guards

RECORDED_METRICS = (
    *("loss", "grad_norm", "reward", "reward_std", "entropy", "clip_ratio/region_mean", "kl"),
    *("ifpo/multiplier", "logged/kl", "logged/mean_ratio", "logged/largest_ratio", "logged/dropped"),
    *(f"logged/towards_consulting/{kind}" for kind in (*KINDS, "other")),
)
_RECORDED_SETTINGS = (
    *("learning_rate", "loss_type", "beta", "epsilon"),
    *("num_train_epochs", "temperature", "seed"),
)
_TEMPLATE_SAMPLE = 32
"""Number of episodes on which the chat template is checked."""

NOTIFY = make_notifier("logged")


def run_logged(arguments: LoggedArguments, config: LoggedConfig, notify: Notify = NOTIFY) -> dict[str, Any]:
    """Trains, saves the results, and returns the contents of `run.json`.

    Of several processes, the first one reports and saves.

    Raises:
        TrainingError: the model cannot be loaded, no episode can be trained on, the log's log-probabilities
            are not the model's, or a result cannot be saved.
        GroupError: the file of groups cannot be read.
    """
    with silence_libraries():
        return _run(arguments, config, notify_from_rank_zero(notify, config))


def _run(arguments: LoggedArguments, config: LoggedConfig, notify: Notify) -> dict[str, Any]:
    started = time.perf_counter()
    out = Path(config.output_dir)
    groups = read_logged_groups(arguments, notify)
    config.temperature = groups.temperature
    tokenizer = load_tokenizer(arguments.model)
    _check_template(tokenizer, groups, arguments)
    plan = {
        "groups_sha256": groups.sha256,
        **asdict(arguments),
        **changed_settings(config, _RECORDED_SETTINGS),
    }
    checkpoint = begin_or_resume_together(config, plan, arguments.resume)
    with tokens_removed_on_error(config):
        dataset = build_dataset(groups, tokenizer, arguments, config)
        _report(dataset, check_mode_losses(dataset), notify)
        if problem := precision_warning(arguments, config):
            notify(problem)
        trainer = _build_trainer(arguments, config, tokenizer)
        scored = score_dataset(dataset, trainer, tokenizer, arguments, notify)
        trainer.train_dataset = scored.rows
        guards = _attach_guards(trainer, arguments, tokenizer, dataset, notify)
    if arguments.resume:
        notify(
            f"resuming from {checkpoint}" if checkpoint else f"{out} holds no checkpoint: starting a new run"
        )
    with step_reporter(notify, _format_metrics, enabled=config.process_index == 0) as reporter:
        trainer.add_callback(reporter)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)

    record = {
        "stage": "logged",
        "method": arguments.method,
        "arguments": asdict(arguments),
        "advantages": groups.settings,
        "training": changed_settings(config, _RECORDED_SETTINGS),
        "data": dataset.record(),
        # `ascl-train plot` draws them as the state before training, also where the file is elsewhere.
        "groups": group_statistics(Path(arguments.groups)).as_json() if config.process_index == 0 else None,
        "off_policy": scored.off_policy,
        "stratified": scored.stratified,
        "stopped": guards.stopped,
        "floor": guards.readings,
        "steps": _steps(trainer.state.log_history),
        "seconds": round(time.perf_counter() - started, 1),
    }
    save_results(out, trainer, tokenizer, arguments.model, record)
    remove_tokens(config)
    return record


def _report(dataset: LoggedDataset, warning: str | None, notify: Notify) -> None:
    """Reports what is trained on, and what is left out.

    Args:
        warning: warning of `check_mode_losses`; it covers the losses of this stage too.
    """
    notify(dataset.summary())
    if warning is not None:
        notify(warning)
    for detail in dataset.details:
        if warning is None or not detail.startswith("warning"):
            notify(detail)


def _check_template(tokenizer: Any, groups: LoggedGroups, arguments: LoggedArguments) -> None:
    sample = groups.sample(_TEMPLATE_SAMPLE)
    names = ("messages", "tools", "turns", "mode", "forced")
    columns = {name: [texts[name] for texts in sample] for name in names}
    problem = log_template_problem(tokenizer, columns, lambda index: template_options_of(sample[index]))
    if problem:
        raise TrainingError(f"{arguments.model} cannot be trained on {arguments.groups}: {problem}")


def _build_trainer(arguments: LoggedArguments, config: LoggedConfig, tokenizer: Any) -> Any:
    import datasets

    from trainer.stages.logged.trainer import LoggedIFPOTrainer

    # TRL accepts only a `datasets.Dataset` here; the rows replace it once the trainer has scored them.
    placeholder = datasets.Dataset.from_dict({"prompt": [""]})
    trainer = build_trainer(LoggedIFPOTrainer, arguments, config, tokenizer, train_dataset=placeholder)
    if trainer.is_fsdp_enabled:
        raise TrainingError(
            "FSDP cannot replay logged episodes, because it has no whole model before training begins: "
            "remove the FSDP configuration, as `ascl-train launch logged` does"
        )
    return trainer


def _attach_guards(
    trainer: Any, arguments: LoggedArguments, tokenizer: Any, dataset: LoggedDataset, notify: Notify
) -> Guards:
    multiplier = trainer.multiplier
    watched = ["floor_consult"] * (arguments.floor_consult is not None)
    watched += ["harmful_floor"] * (multiplier is not None and multiplier.watched == "consult")
    if watched and dataset.decides_late:
        raise TrainingError(
            f"{dataset.late} of {dataset.free} free episodes think or write before they decide, so "
            f"{watched[0]}, which is measured by the tokens that open a call, would be far too low: remove "
            "it, and train with `ascl-train loop`, whose floor samples whole episodes"
        )
    from trainer.stages.logged.floor import load_held_out_prompts
    from trainer.stages.logged.guards import Guards

    return Guards.attach(
        trainer,
        arguments.max_drift,
        SafetyFloor(arguments.floor_consult, arguments.floor_safe),
        load_held_out_prompts(arguments, tokenizer, dataset.groups),
        rollback=arguments.on_floor == "rollback",
        notify=notify,
    )


def _steps(log_history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"step": entry["step"], **{name: entry[name] for name in RECORDED_METRICS if name in entry}}
        for entry in log_history
        if "loss" in entry
    ]


def _format_metrics(logs: Mapping[str, float]) -> str:
    kl, clipped = logs.get("logged/kl", 0.0), logs.get("clip_ratio/region_mean", 0.0)
    return f"KL to the start {kl:.4f}, clipped {clipped:.1%}"
