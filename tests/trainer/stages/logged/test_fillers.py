"""Rows that only fill the last batch have no weight, neither in the figures nor in the update."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.fakes.episodes.logged_rows import make_rows, make_trainer
from tests.fakes.models.tiny_llama import save_tiny_llama

LOSSES = ("grpo", "dr_grpo", "sapo", "luspo", "bnpo", "dapo", "cispo")
PLAIN = {
    "optim": "sgd",
    "learning_rate": 0.1,
    "max_grad_norm": 1e9,
    "num_train_epochs": 1,
    "logging_steps": 1,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("tiny"))


def filled_up(rows: list[Any], batch_size: int) -> list[Any]:
    """Fills the last batch as `TrainingRows.padded` does, with copies of the shortest row without loss."""
    shortest = min(rows, key=lambda row: len(row["prompt_ids"]) + len(row["completion_ids"]))
    zeros = [0] * len(shortest["loss_mask"])
    filler = {**shortest, "loss_mask": zeros, "logprobs": [0.0] * len(zeros), "advantage": 0.0}
    return rows + [filler] * (-len(rows) % batch_size)


def trained(model: Path, out: Path, rows: list[Any], **settings: Any) -> tuple[list[torch.Tensor], Any]:
    """Returns the weights after an epoch, and the log of its step."""
    trainer = make_trainer(model, out, rows, **{**PLAIN, **settings})
    trainer.train()
    (entry,) = (entry for entry in trainer.state.log_history if "grad_norm" in entry)
    return [parameter.detach().clone() for parameter in trainer.model.parameters()], entry


@pytest.mark.parametrize("loss_type", LOSSES)
@pytest.mark.parametrize("accumulated", [False, True])
def test_an_update_with_fillers_equals_that_of_the_episodes_alone(
    loss_type: str, accumulated: bool, model: Path, tmp_path: Path
) -> None:
    rows = make_rows(5)
    if loss_type == "bnpo" and accumulated:
        pytest.skip("a mean over the tokens of a micro-batch depends on how rows are divided")
    size = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4} if accumulated else {}
    alone, expected = trained(model, tmp_path / "alone", rows, loss_type=loss_type)
    filled, entry = trained(model, tmp_path / "filled", filled_up(rows, 8), loss_type=loss_type, **size)
    for one, other in zip(alone, filled, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
    assert entry["loss"] == pytest.approx(expected["loss"], abs=1e-6)
    for name in ("reward", "reward_std", "entropy", "logged/kl", "logged/mean_ratio"):
        assert entry[name] == pytest.approx(expected[name], abs=1e-6), name
    assert entry["reward"] == pytest.approx(0.4)


def test_figures_of_an_epoch_weight_every_episode_equally(model: Path, tmp_path: Path) -> None:
    rows = [{**row, "reward": float(n < 5)} for n, row in enumerate(make_rows(10))]
    _, entry = trained(model, tmp_path, filled_up(rows, 8), per_device_train_batch_size=8, logging_steps=2)
    assert entry["reward"] == pytest.approx(0.5)


def test_without_fillers_nothing_changes(model: Path, tmp_path: Path) -> None:
    rows = make_rows(8)
    trainer = make_trainer(model, tmp_path, rows, loss_type="grpo")
    trainer.model.train()
    batch = trainer._generate_and_score_completions(list(trainer.train_dataset))
    assert "is_episode" not in batch
