"""What a user of the trainer can mend: each is one sentence that says how."""

from __future__ import annotations


class TrainerError(Exception):
    """Base of all; the command line shows its text and nothing else."""


class LocalModelError(TrainerError):
    """The local model cannot be prepared."""


class GroupError(TrainerError):
    """Groups cannot be made or read."""


class ConfigError(TrainerError):
    """Settings cannot be used."""


class TrainingError(TrainerError):
    """A run cannot start."""


class LoopError(TrainerError):
    """A loop cannot go on."""
