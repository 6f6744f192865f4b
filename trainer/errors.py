"""Errors that a user can fix. Each message is one sentence that says how."""

from __future__ import annotations


class TrainerError(Exception):
    """Base class. The command line prints its message without a traceback."""


class LocalModelError(TrainerError):
    """The local model cannot be prepared."""


class GroupError(TrainerError):
    """Groups cannot be computed or read."""


class ConfigError(TrainerError):
    """A setting is unknown or invalid."""


class TrainingError(TrainerError):
    """A training run cannot start or failed."""


class LoopError(TrainerError):
    """A training loop cannot continue."""
