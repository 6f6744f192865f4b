"""Runs the arms, each epoch into its own file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.learning.decision.ceiling.arms import Arm
from benchmarks.learning.decision.ceiling.learner import LabelTraining, policy_of
from benchmarks.learning.decision.experiment.prompt_sets import PromptSets, Sets
from benchmarks.learning.decision.experiment.settings import Experiment
from benchmarks.learning.decision.model.policy import DecisionPolicy, EncodedPrompts
from trainer.stages import run_record

MORE_PER_SOURCE = 60
"""Prompts of every source and kind that are measured after the last epoch; after the others, as many as the
experiment has."""


@dataclass(frozen=True)
class CeilingFolders:
    """Folders of the arms."""

    out: Path
    """Results."""
    cache: Path
    """Hidden states and checkpoints."""
    model: Path
    """The model to start from."""
    data: Path
    """Prompts of other sources."""


class CeilingPrompts:
    """The prompts of the experiment.

    Attributes:
        training: prompts with labels, by `source/kind`.
        measured: unseen prompts and spare harmful ones of the learnt sources, for every epoch.
        more: further unseen prompts, for the last epoch only.
        unseen: names of the measured sets that count as unseen.
    """

    def __init__(self, experiment: Experiment, data: Path, tokenizer: Any) -> None:
        def length(prompt: Any) -> int:
            return len(tokenizer(prompt.prompt, add_special_tokens=False)["input_ids"])

        sets = PromptSets.of(experiment, data, length)
        wide = experiment.model_copy(update={"unseen_per_source": MORE_PER_SOURCE})
        chosen = {prompt.id for prompts in sets.unseen.values() for prompt in prompts}
        self.training = sets.training
        self.measured = sets.unseen | sets.calibration
        self.more = {
            name: [prompt for prompt in prompts if prompt.id not in chosen]
            for name, prompts in PromptSets.of(wide, data, length).unseen.items()
            if not name.startswith("own/")
        }
        self.unseen = list(sets.unseen)

    def labels(self) -> list[bool]:
        """Returns whether each training prompt is harmful."""
        return [prompt.kind == "harmful" for prompts in self.training.values() for prompt in prompts]


def run_arms(
    arms: dict[str, Arm], seeds: Sequence[int], experiment: Experiment, folders: CeilingFolders
) -> Iterator[dict[str, Any]]:
    """Runs all unfinished epochs. Yields the result of each, which its file already contains.

    Raises:
        ValueError: a finished epoch has other settings.
    """
    for seed in seeds:
        for name, arm in arms.items():
            files = [folders.out / f"{name}-{seed:02d}-{epoch}.json" for epoch in range(1, arm.epochs + 1)]
            for file in files:
                _check(file, arm)
            if not files[-1].is_file():
                yield from _run_arm(name, arm, seed, experiment, folders, files)


def _check(file: Path, arm: Arm) -> None:
    if file.is_file() and json.loads(file.read_text(encoding="utf-8"))["settings"] != asdict(arm):
        raise ValueError(f"{file} was created with different settings: remove it, or pass a different --out")


def _run_arm(
    name: str, arm: Arm, seed: int, experiment: Experiment, folders: CeilingFolders, files: list[Path]
) -> Iterator[dict[str, Any]]:
    policy = policy_of(arm, folders.model, bfloat16=True)
    prompts = CeilingPrompts(experiment, folders.data, policy.tokenizer)
    measured, more = (_Measured(policy, sets, folders.cache) for sets in (prompts.measured, prompts.more))
    encoded = policy.encode(_texts(prompts.training), folders.cache)
    checkpoint = folders.cache / f"ceiling-{name}-{seed:02d}.pt"
    training = LabelTraining(policy, encoded, prompts.labels(), arm, seed, checkpoint)
    with _progress() as progress:
        task = progress.add_task(name, total=arm.epochs * training.steps)
        progress.advance(task, training.finished * training.steps)
        while True:
            # After an interruption, the last epoch may have a checkpoint but no result yet.
            if training.finished and not (file := files[training.finished - 1]).is_file():
                result = {
                    "arm": name,
                    "seed": seed,
                    "epoch": training.finished,
                    "settings": asdict(arm),
                    "versions": run_record.package_versions(),
                    **training.records[-1],
                    "unseen": prompts.unseen,
                    "log_odds": measured.log_odds(),
                }
                if training.finished == arm.epochs:
                    result["more"] = more.log_odds()
                write_result(file, result)
                yield result
            if training.finished == arm.epochs:
                break
            training.run_epoch(lambda: progress.advance(task))
    checkpoint.unlink(missing_ok=True)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(compact=True)
    )


def _texts(sets: Sets) -> list[str]:
    return [prompt.prompt for prompts in sets.values() for prompt in prompts]


class _Measured:
    """Encoded prompts by `source/kind`."""

    def __init__(self, policy: DecisionPolicy, sets: Sets, cache: Path) -> None:
        self._policy, self._sets = policy, sets
        self._encoded: EncodedPrompts = policy.encode(_texts(sets), cache)

    def log_odds(self) -> dict[str, list[float]]:
        """Returns the present log-odds of consulting, by `source/kind`."""
        odds = np.round(self._policy.consult_log_odds(self._encoded).numpy(), 3)
        return split_by_name(odds, self._sets)


def split_by_name(values: Any, sets: Sets) -> dict[str, list[float]]:
    """Returns values of all prompts of `sets`, in their order, by `source/kind`."""
    ends = np.cumsum([len(prompts) for prompts in sets.values()])
    return {name: part.tolist() for name, part in zip(sets, np.split(values, ends[:-1]), strict=True)}


def write_result(file: Path, result: dict[str, Any]) -> None:
    """Writes a result, so that an interruption leaves no half-written file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".tmp")
    partial.write_text(json.dumps(result) + "\n", encoding="utf-8")
    partial.replace(file)
