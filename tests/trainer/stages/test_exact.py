"""Runs that must give equal weights: GRPO and alpha 0, two processes, accumulation, an interrupted run."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from trl import GRPOTrainer
from typer.testing import CliRunner

from tests.fakes.episodes import logged_rows
from tests.fakes.models.tiny_llama import save_tiny_llama
from tests.fakes.processes import preloaded
from tests.fakes.processes.ports import free_port
from tests.trainer.stages.logged.test_stage import episodes, grouped
from trainer.cli import app
from trainer.ifpo import ifpo_advantages
from trainer.stages.config import IFPOConfig
from trainer.stages.ifpo_trainer import IFPOTrainer

PROCESSES = 2


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("tiny"))


def online(kind: type, model: Path, out: Path, **more: Any) -> list[torch.Tensor]:
    """Returns the weights after 20 steps on completions that the model samples."""

    def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
        return [sum(ids) % 7 / 7 for ids in completion_ids]

    config = IFPOConfig(
        output_dir=str(out),
        per_device_train_batch_size=8,
        num_generations=4,
        max_completion_length=6,
        max_steps=20,
        learning_rate=1e-2,
        seed=3,
        **more,
    )
    prompts = datasets.Dataset.from_dict({"prompt": ["one", "two", "three", "four"]})
    trainer = kind(model=str(model), reward_funcs=reward, args=config, train_dataset=prompts)
    trainer.train()
    return [parameter.detach().clone() for parameter in trainer.model.parameters()]


def test_twenty_steps_with_alpha_zero_equal_trls_grpo_to_the_bit(model: Path, tmp_path: Path) -> None:
    plain = online(GRPOTrainer, model, tmp_path / "plain")
    ifpo = online(IFPOTrainer, model, tmp_path / "ours", alpha=0.0)
    assert all(torch.equal(a, b) for a, b in zip(plain, ifpo, strict=True))
    start = load_file(model / "model.safetensors")["model.norm.weight"]
    assert not any(torch.equal(start, weights) for weights in ifpo)  # training changed the weights


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numpy_and_torch_agree(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(0)
    rewards, modes = rng.normal(size=96), rng.integers(0, 3, 96)
    groups = np.repeat(np.arange(12), 8)
    by_numpy = ifpo_advantages(rewards, modes, groups)
    by_torch = ifpo_advantages(torch.tensor(rewards, dtype=dtype), torch.tensor(modes), torch.tensor(groups))
    assert by_torch.dtype == dtype
    np.testing.assert_allclose(by_torch.double().numpy(), by_numpy, rtol=0, atol=1e-6)


SETTINGS = (
    *("--lora_layers", "2", "--learning_rate", "0.05", "--optim", "sgd", "--max_grad_norm", "0.5"),
    *("--beta", "0.02", "--num_train_epochs", "3", "--max_drift", "100"),
)


def command(model: Path, groups: Path, out: Path, batch: int) -> list[str]:
    named = ["logged", "--model", str(model), "--groups", str(groups), "--out", str(out)]
    return [*named, *SETTINGS, "--per_device_train_batch_size", str(batch)]


def adapter(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "adapter" / "adapter_model.safetensors")


@pytest.mark.parametrize(("loss_type", "batch"), [("dapo", 4), ("grpo", 10)])  # 10: the last batch is filled
def test_two_processes_learn_the_same_as_one(loss_type: str, batch: int, model: Path, tmp_path: Path) -> None:
    groups = grouped(tmp_path, episodes())
    loss = ["--loss_type", loss_type]
    result = CliRunner().invoke(app, [*command(model, groups, tmp_path / "one", batch), *loss])
    assert result.exit_code == 0, result.output
    arguments = [*command(model, groups, tmp_path / "two", batch // 2), *loss]
    with ThreadPoolExecutor(PROCESSES) as pool:
        rendezvous = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free_port()),
            "ACCELERATE_USE_CPU": "true",
        }
        launched = [
            pool.submit(
                preloaded.run,
                *("trainer.cli", *arguments),
                environment=os.environ
                | rendezvous
                | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(PROCESSES)},
                timeout=240,
            )
            for rank in range(PROCESSES)
        ]
    stdout, stderr = (
        "".join(getattr(done.result(), name) for done in launched) for name in ("stdout", "stderr")
    )
    assert [done.result().returncode for done in launched] == [0] * PROCESSES, stderr[-3000:]
    one, two = adapter(tmp_path / "one"), adapter(tmp_path / "two")
    assert any(one[name].abs().max() > 1e-3 for name in one if "lora_B" in name)  # it changed
    for name, weights in one.items():
        torch.testing.assert_close(two[name], weights, rtol=0, atol=1e-5)
    assert stderr.count("learning from") == 1  # only one process reports
    assert stdout.count("ifpo on") == 1
    records = [json.loads((tmp_path / name / "run.json").read_text()) for name in ("one", "two")]
    for mine, theirs in zip(records[0]["steps"], records[1]["steps"], strict=True):
        assert theirs["logged/kl"] == pytest.approx(mine["logged/kl"], rel=1e-3, abs=1e-6)
        assert theirs["logged/largest_ratio"] == pytest.approx(mine["logged/largest_ratio"], rel=1e-3)
        assert theirs["reward"] == pytest.approx(mine["reward"], abs=1e-6)


def in_process(model: Path, out: Path, resume: str | None = None, **settings: Any) -> list[torch.Tensor]:
    trainer = logged_rows.make_trainer(
        model,
        out,
        logged_rows.make_rows(16),
        **({"per_device_train_batch_size": 8, "num_train_epochs": 3} | settings),
    )
    trainer.train(resume_from_checkpoint=resume)
    return [parameter.detach().clone() for parameter in trainer.model.parameters()]


def test_accumulated_gradients_equal_those_of_the_whole_batch(model: Path, tmp_path: Path) -> None:
    whole = in_process(model, tmp_path / "whole", optim="sgd")
    parts = in_process(
        model, tmp_path / "parts", optim="sgd", per_device_train_batch_size=2, gradient_accumulation_steps=4
    )
    for one, two in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-5)


def test_a_resumed_replay_ends_with_the_weights_of_an_uninterrupted_one(model: Path, tmp_path: Path) -> None:
    saved = {"save_strategy": "steps", "save_steps": 1, "lr_scheduler_type": "cosine"}
    unbroken = in_process(model, tmp_path / "run", **saved)
    for step in (1, 3, 5):  # in the middle of an epoch, and in other epochs
        checkpoint = str(tmp_path / "run" / f"checkpoint-{step}")
        resumed = in_process(model, tmp_path / f"from-{step}", checkpoint, **saved)
        assert all(torch.equal(one, two) for one, two in zip(unbroken, resumed, strict=True)), step
