"""Training rows of a replay: episodes as tokens in a memory-mapped file, and their advantages in arrays."""

from trainer.stages.logged.dataset.build import LoggedDataset, build_dataset, check_mode_losses
from trainer.stages.logged.dataset.groups import LoggedGroups, read_logged_groups
from trainer.stages.logged.dataset.rows import TrainingRows
from trainer.stages.logged.dataset.scoring import ScoredDataset, score_dataset

__all__ = [
    "LoggedDataset",
    "LoggedGroups",
    "ScoredDataset",
    "TrainingRows",
    "build_dataset",
    "check_mode_losses",
    "read_logged_groups",
    "score_dataset",
]
