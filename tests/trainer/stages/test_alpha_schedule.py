"""The schedule of alpha: linear over the run, the same after a resume, and constant by default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
import torch

from tests.fakes.models.tiny_llama import save_tiny_llama
from tests.trainer.stages.online import test_stage
from trainer.stages.config import IFPOConfig
from trainer.stages.ifpo_trainer import IFPOTrainer


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(autouse=True)
def mixed_modes(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of four completions counts as consulting."""
    seen = iter(range(10_000))
    monkeypatch.setattr(
        "trainer.stages.ifpo_trainer.consultations_of", lambda messages: int(next(seen) % 4 == 0)
    )


def train(model: Path, out: Path, resume: Path | None = None, **settings: Any) -> tuple[list[Any], list[Any]]:
    """Returns the weights after five steps within one epoch, and the logged values of alpha."""

    def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
        return [sum(ids) % 7 / 7 for ids in completion_ids]

    trainer = IFPOTrainer(
        model=str(model),
        reward_funcs=reward,
        args=IFPOConfig(
            output_dir=str(out),
            per_device_train_batch_size=4,
            num_generations=4,
            max_completion_length=6,
            max_steps=5,
            learning_rate=1e-2,
            **settings,
        ),
        train_dataset=datasets.Dataset.from_dict({"prompt": ["one", "two", "three", "four", "five"]}),
    )
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    logged = [entry["ifpo/alpha"] for entry in trainer.state.log_history if "ifpo/alpha" in entry]
    return [parameter.detach().clone() for parameter in trainer.model.parameters()], logged


def equal(first: list[Any], second: list[Any]) -> bool:
    return all(torch.equal(one, two) for one, two in zip(first, second, strict=True))


def test_alpha_falls_linearly_and_a_resumed_run_continues_the_schedule(model: Path, tmp_path: Path) -> None:
    settings = {"alpha": 1.0, "alpha_end": 0.0, "save_strategy": "steps", "save_steps": 1}
    weights, logged = train(model, tmp_path / "whole", **settings)
    assert logged == [1.0, 0.75, 0.5, 0.25, 0.0]
    resumed, logged = train(model, tmp_path / "resumed", tmp_path / "whole" / "checkpoint-2", **settings)
    assert logged == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert equal(weights, resumed)


def test_a_schedule_without_a_slope_equals_a_constant_alpha_to_the_bit(model: Path, tmp_path: Path) -> None:
    constant, logged = train(model, tmp_path / "constant", alpha=0.7)
    assert logged == []
    level, _ = train(model, tmp_path / "level", alpha=0.7, alpha_end=0.7)
    sloping, _ = train(model, tmp_path / "sloping", alpha=0.7, alpha_end=0.0)
    assert equal(constant, level)
    assert not equal(constant, sloping)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--alpha_end", "-1"], "alpha_end is -1.0, but it must be a number of at least 0"),
        (["--alpha_end", "0", "--method", "grpo"], "sets alpha to 0, so alpha_end has no effect"),
    ],
)
def test_invalid_settings_are_reported(options: list[str], message: str, tmp_path: Path) -> None:
    code, _, stderr = test_stage.run("online", "--model", "m", "--out", tmp_path, *options)
    assert code == 1
    assert message in stderr


def test_a_log_has_no_schedule(tmp_path: Path) -> None:
    (groups := tmp_path / "groups.parquet").touch()
    named = ("--model", "m", "--groups", groups, "--out", tmp_path / "out", "--alpha_end", "0")
    code, _, stderr = test_stage.run("logged", *named)
    assert code == 1
    assert "alpha_end has no effect on logged episodes" in stderr
