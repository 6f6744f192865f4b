"""The prompts of an experiment: to train on, to validate, to measure, and to choose an offset on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.learning.decision.data.prompts import (
    disguised_prompts,
    held_out_prompts,
    source_prompts,
    training_prompts,
    validation_prompts,
)
from benchmarks.learning.decision.experiment.settings import Experiment
from evaluation.prompts import Prompt

Sets = dict[str, list[Prompt]]
"""Prompts by `source/kind`."""


@dataclass(frozen=True)
class PromptSets:
    """The prompts of an experiment."""

    training: Sets
    """The name of our own prompts, of all kinds, is `own`."""
    validation: list[Prompt]
    """Prompts that are watched during the training."""
    unseen: Sets
    """Prompts of other sources, and our own held-out ones."""
    calibration: Sets
    """Harmful prompts of the learnt sources that are not trained on; may be empty."""
    disguised: Sets
    """Harmful prompts in disguise; empty without a calibration set."""
    left_out: int
    """Number of unseen prompts that were too long."""

    @classmethod
    def of(cls, experiment: Experiment, data: Path | None, length: Callable[[Prompt], int]) -> PromptSets:
        """Selects the prompts of an experiment.

        Args:
            data: folder of labelled prompts from other sources; None for our own prompts only.
            length: returns the number of tokens of a prompt.

        Raises:
            PromptError: a file cannot be read.
            ValueError: a source is missing.
        """
        training = {
            "own": [prompt for prompt in training_prompts() if prompt.kind in experiment.training.prompts]
        }
        spare: Sets = {}
        if experiment.learnt_sources and data:
            learnt = experiment.learnt_per_source
            labelled = source_prompts(
                data, learnt + experiment.calibration_per_source, only=experiment.learnt_sources
            )
            learnt_sets = {name: prompts[:learnt] for name, prompts in labelled.items()}
            training |= _short(learnt_sets, experiment, length)
            spare = {
                name: prompts[learnt:] for name, prompts in labelled.items() if name.endswith("/harmful")
            }
        unseen = held_out_prompts()
        if data:
            others = source_prompts(
                data,
                experiment.unseen_per_source,
                only=experiment.unseen_sources,
                without=experiment.learnt_sources,
            )
            unseen = others | unseen
        short = _short(unseen, experiment, length)
        watched = _watched(experiment, data, length) if experiment.watched_per_source and data else None
        return cls(
            training,
            validation_prompts() if watched is None else watched,
            short,
            _short(spare, experiment, length),
            {"disguised/harmful": disguised_prompts()} if experiment.calibration_per_source else {},
            sum(map(len, unseen.values())) - sum(map(len, short.values())),
        )

    def by_source(self) -> Sets:
        """Returns all prompts, each once."""
        sets: Sets = {"validation": self.validation}
        for name, prompts in self._named():
            sets[name] = [*sets.get(name, []), *prompts]
        return sets

    def _named(self) -> Iterator[tuple[str, list[Prompt]]]:
        for each in (self.training, self.unseen, self.calibration, self.disguised):
            yield from each.items()


def _watched(experiment: Experiment, data: Path, length: Callable[[Prompt], int]) -> list[Prompt]:
    """Returns the harmful prompts of the measured sources that follow the measured ones."""
    measured = experiment.unseen_per_source
    further = {
        name: prompts[measured:]
        for name, prompts in source_prompts(
            data,
            measured + experiment.watched_per_source,
            only=experiment.unseen_sources,
            without=experiment.learnt_sources,
        ).items()
        if name.endswith("/harmful")
    }
    return [prompt for prompts in _short(further, experiment, length).values() for prompt in prompts]


def _short(sets: Sets, experiment: Experiment, length: Callable[[Prompt], int]) -> Sets:
    """Returns the prompts that are not too long."""
    short = {
        name: [prompt for prompt in prompts if length(prompt) <= experiment.unseen_tokens]
        for name, prompts in sets.items()
    }
    return {name: prompts for name, prompts in short.items() if prompts}
