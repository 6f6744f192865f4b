"""Adds what needs the starting checkpoint: log-probabilities, and the weights of forced decisions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from evaluation.runtime import write_atomic
from trainer.errors import TrainingError
from trainer.stages.logged.behaviour_logprobs import check_logprobs, compute_logprobs
from trainer.stages.logged.credit import decision_weights
from trainer.stages.logged.dataset.build import LoggedDataset
from trainer.stages.logged.dataset.groups import PROMPT_COLUMNS
from trainer.stages.logged.dataset.rows import TrainingRows
from trainer.stages.logged.dataset.token_file import LOGPROBS, TokenFile, write_token_file
from trainer.stages.monitoring import Notify

if TYPE_CHECKING:
    from trainer.stages.logged.config import LoggedArguments


@dataclass(frozen=True)
class ScoredDataset:
    """Rows in full batches, ready to train on, and the fields of the run record that describe them."""

    rows: TrainingRows
    off_policy: dict[str, Any]
    stratified: dict[str, Any] | None
    """None without forced episodes."""


def score_dataset(
    dataset: LoggedDataset, trainer: Any, tokenizer: Any, arguments: LoggedArguments, notify: Notify
) -> ScoredDataset:
    """Adds what needs the starting checkpoint: missing log-probabilities and the weights of forced decisions.

    Args:
        trainer: `LoggedIFPOTrainer` with the starting weights.

    Raises:
        TrainingError: the logged log-probabilities are not those of the starting checkpoint, or the computed
            ones cannot be written.
    """
    groups, rows = dataset.groups, dataset.rows.padded(trainer.args.generation_batch_size)
    missing = np.flatnonzero(~rows.columns["has_logprobs"])
    # The policy did not sample a forced decision, so logged log-probabilities of such an episode are not
    # used.
    logged = dataset.episodes.index["logged_logprobs"][rows.columns["row"][missing]]
    forced = int((groups.columns["forced"][rows.columns["episode"][missing]] & logged).sum())
    text_only = len(missing) - forced
    difference = None
    if len(missing) < rows.episodes and arguments.behaviour == "model" and arguments.check_logprobs:
        difference = check_logprobs(trainer, rows, arguments.check_logprobs, arguments.logprob_tolerance)
    if len(missing):
        cause = (
            "the log has no log-probabilities" if text_only else "forced episodes have no log-probabilities"
        )
        notify(f"{cause} of the policy: computing them with the starting checkpoint")
        rows = _with_computed_logprobs(trainer, rows, missing, dataset.episodes.tokens.path.parent)
    off_policy = {
        "text_only_episodes": text_only,
        "forced_episodes": forced,
        "behaviour_logprobs": "recomputed with the starting checkpoint" if text_only else "logged",
        "largest_difference": difference,
    }
    ratio, stratified = np.ones(rows.episodes), None
    if groups.columns["forced"].any():
        method = arguments.mode_probability
        if method == "decision" and dataset.decides_late:
            method = "rate"
            notify(
                f"{dataset.late} of {dataset.free} free episodes think or write before they decide, so the "
                "tokens that open a call do not measure the probability of consulting: using the consult "
                "rate of the free episodes (mode_probability 'rate')"
            )
        usable, prompts = dataset.episodes.index["episode"], partial(groups.texts, PROMPT_COLUMNS)
        consult, ratios = decision_weights(trainer, tokenizer, groups.columns, prompts, method, usable)
        ratio = ratios[rows.columns["row"]]
        stratified = {
            "groups": len(consult),
            "mode_probability": method,
            "mean_consult_probability": round(sum(consult.values()) / len(consult), 4),
        }
    if stratified or arguments.credit == "split":
        rows = replace(rows, ratio=ratio)
    return ScoredDataset(rows, off_policy, stratified)


def _with_computed_logprobs(
    trainer: Any, rows: TrainingRows, missing: npt.NDArray[np.int64], folder: Path
) -> TrainingRows:
    """Computes the log-probabilities of the rows `missing`; the first process of a machine writes them."""
    # Batches of similar lengths need little padding.
    order = missing[np.argsort(rows.columns["length"][missing], kind="stable")]
    lines = ({"logprobs": line} for line in compute_logprobs(trainer, rows, order.tolist()))
    path = folder / "logprobs.arrow"
    if trainer.accelerator.is_local_main_process:
        try:
            write_atomic(path, lambda part: write_token_file(part, LOGPROBS, lines))
        except OSError as error:
            raise TrainingError(
                f"the log-probabilities cannot be written to {path} ({error.strerror or error}): free disk "
                "space there, or use another folder"
            ) from None
    else:
        for _ in lines:
            pass
    trainer.accelerator.wait_for_everyone()
    position = np.full(rows.episodes, -1)
    position[order] = np.arange(len(order))
    return replace(rows, computed=TokenFile(path), computed_row=position)
