"""Settings of an experiment. `registered.yaml` contains the reported experiments."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from benchmarks.learning.decision.experiment.outcomes import ModeChances
from trainer.ifpo import Baseline, CostWhere, Frequency, Scale


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Method(_Strict):
    """Sampling and weighting of episodes. The defaults are those of GRPO."""

    alpha: float = Field(default=0.0, ge=0)
    w_max: float = Field(default=4.0, gt=0)
    baseline: Baseline = "balanced"
    frequency: Frequency = "group"
    scale_rewards: Scale = "group"
    credit: Literal["episode", "split"] = "episode"
    forced_consult: int = Field(default=0, ge=0)
    forced_direct: int = Field(default=0, ge=0)
    cost: float = Field(default=0.0, ge=0)
    """Cost of a consultation, in units of reward."""
    supervised: bool = False
    """Whether the method is an upper bound: the same steps with the better mode as a label instead of
    rewards."""
    kl: float = Field(default=0.0, ge=0)
    """Weight of the divergence from the initial decision."""
    alpha_end: float | None = Field(default=None, ge=0)
    """`alpha` after the last update, to which it changes linearly; None: it stays the same."""
    cost_where: CostWhere = "always"
    """Groups in which `cost` is charged: see `with_consultation_cost`."""
    harmful_floor: float | None = Field(default=None, ge=0, le=1)
    """Consult rate on watched harmful prompts that a multiplier on the advantages of harmful prompts holds;
    None: there is no multiplier. See `updated_multiplier`, also for the next two."""
    multiplier_rate: float = Field(default=0.5, gt=0)
    multiplier_max: float = Field(default=10.0, ge=1)


class Training(_Strict):
    """Training settings that all methods of an experiment share."""

    updates: int = Field(ge=1)
    prompts: dict[str, int]
    """Number of prompts per update, by kind."""
    group: int = Field(default=8, ge=2)
    learning_rate: float = Field(gt=0)
    """Peak after the warm-up; decays linearly to zero."""
    warmup: int = Field(default=2, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    layers: int = Field(default=8, ge=1)
    rank: int = Field(default=16, ge=1)
    bfloat16: bool = True
    watch_every: int = Field(default=10, ge=1)
    floor: float | None = Field(default=None, ge=0, le=1)
    """Minimum consult rate on the harmful validation prompts. Training that ends below it is rolled back."""


class Experiment(_Strict):
    """A reward table, starts, methods and seeds."""

    rewards: dict[str, ModeChances]
    """Success probabilities by kind of prompt."""
    training: Training
    starts: list[Literal["mild", "locked-in"]]
    seeds: int = Field(ge=1)
    methods: dict[str, Method]
    learnt_sources: list[str] = []
    """Sources of labelled prompts that are used for training and not for evaluation."""
    learnt_per_source: int = Field(default=60, ge=1)
    """Maximum number of prompts of each kind from such a source."""
    unseen_per_source: int = Field(ge=1)
    unseen_sources: list[str] = []
    """Sources that are measured; empty for all that are not learnt from."""
    unseen_tokens: int = Field(ge=1)
    """Maximum tokens of an unseen prompt; longer ones are left out and counted."""
    hint_share: float = Field(default=0.0, ge=0, le=1)
    """Share of the training prompts that get a hint, chosen as `ascl-agent run --hint-share` does. With any,
    all other prompts get one."""
    calibration_per_source: int = Field(default=0, ge=0)
    """Harmful prompts of each learnt source that are not trained on, to choose an offset of the decision."""
    watched_per_source: int = Field(default=0, ge=0)
    """Further harmful prompts of each measured source, which are neither trained on nor measured: they are
    watched in place of the validation prompts. 0: there are none."""


def read_experiments(path: Path) -> dict[str, Experiment]:
    """Reads the experiments of a file, by name.

    Raises:
        ValueError: the file is not YAML, or its experiments are invalid.
    """
    try:
        experiments = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(experiments, dict):
        raise ValueError(f"{path} must map names to experiments")
    return {name: Experiment.model_validate(experiment) for name, experiment in experiments.items()}
