"""What an experiment consists of; `registered.yaml` holds those whose figures are reported."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from benchmarks.learning.decision.experiment.outcomes import ModeChances
from trainer.ifpo import Baseline, Frequency, Scale


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Method(_Strict):
    """How episodes are sampled and weighed. The defaults are GRPO's."""

    alpha: float = Field(default=0.0, ge=0)
    w_max: float = Field(default=4.0, gt=0)
    baseline: Baseline = "balanced"
    frequency: Frequency = "group"
    scale_rewards: Scale = "group"
    credit: Literal["episode", "split"] = "episode"
    forced_consult: int = Field(default=0, ge=0)
    forced_direct: int = Field(default=0, ge=0)
    cost: float = Field(default=0.0, ge=0)
    """Of a consultation, in units of reward."""
    supervised: bool = False
    """Not a rival but a bound: the same steps with the mode that pays as a label in place of rewards."""
    kl: float = Field(default=0.0, ge=0)
    """Weight of the divergence of the decision from the start's."""


class Training(_Strict):
    """What all methods of an experiment share."""

    updates: int = Field(ge=1)
    prompts: dict[str, int]
    """How many prompts of each kind are in an update."""
    group: int = Field(default=8, ge=2)
    learning_rate: float = Field(gt=0)
    """At its height, after the warm-up; it falls linearly to zero."""
    warmup: int = Field(default=2, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    layers: int = Field(default=8, ge=1)
    rank: int = Field(default=16, ge=1)
    bfloat16: bool = True
    watch_every: int = Field(default=10, ge=1)
    floor: float | None = Field(default=None, ge=0, le=1)
    """The harmful consult rate on the watched prompts below which an update's result is not kept."""


class Experiment(_Strict):
    """A reward table, starts, methods and seeds."""

    rewards: dict[str, ModeChances]
    """By kind of prompt."""
    training: Training
    starts: list[Literal["mild", "locked-in"]]
    seeds: int = Field(ge=1)
    methods: dict[str, Method]
    learnt_sources: list[str] = []
    """Files of labelled prompts that are learnt from beside our own, and not measured on."""
    learnt_per_source: int = Field(default=60, ge=1)
    """At most so many prompts of each kind of such a file."""
    unseen_per_source: int = Field(ge=1)
    unseen_tokens: int = Field(ge=1)
    """Longest unseen prompt in tokens; longer ones are left out and counted."""


def read_experiments(path: Path) -> dict[str, Experiment]:
    """The experiments of a file by name.

    Raises:
        ValueError: not YAML, or not such experiments.
    """
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(given, dict):
        raise ValueError(f"{path} holds no experiments by name")
    return {name: Experiment.model_validate(experiment) for name, experiment in given.items()}
