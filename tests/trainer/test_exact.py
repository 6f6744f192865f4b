"""What must come out the same: GRPO by alpha 0, processes, accumulation, and a run that was interrupted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from trl import GRPOTrainer

from tests.fakes import logged_rows
from tests.fakes.tiny_llama import save_tiny_llama
from trainer.config import IFPOConfig
from trainer.grpo import IFPOTrainer
from trainer.ifpo import ifpo_advantages

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("tiny"))


def online(kind: type, model: Path, out: Path, **more: Any) -> list[torch.Tensor]:
    """Weights after 20 steps on completions that the model samples itself."""

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


def test_with_alpha_zero_twenty_steps_are_those_of_trls_grpo_to_the_bit(model: Path, tmp_path: Path) -> None:
    plain = online(GRPOTrainer, model, tmp_path / "plain")
    ours = online(IFPOTrainer, model, tmp_path / "ours", alpha=0.0)
    assert all(torch.equal(a, b) for a, b in zip(plain, ours, strict=True))
    start = load_file(model / "model.safetensors")["model.norm.weight"]
    assert not any(torch.equal(start, weights) for weights in ours)  # it moved


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numpy_and_torch_agree(dtype: torch.dtype) -> None:
    chance = np.random.default_rng(0)
    rewards, modes = chance.normal(size=96), chance.integers(0, 3, 96)
    groups = np.repeat(np.arange(12), 8)
    by_numpy = ifpo_advantages(rewards, modes, groups)
    by_torch = ifpo_advantages(torch.tensor(rewards, dtype=dtype), torch.tensor(modes), torch.tensor(groups))
    assert by_torch.dtype == dtype
    np.testing.assert_allclose(by_torch.double().numpy(), by_numpy, rtol=0, atol=1e-6)


REPLAY = """
import sys
from pathlib import Path
from tests.fakes import logged_rows
from trainer.quiet import quiet_libraries
model, out, micro, steps, save, resume = sys.argv[1:]
with quiet_libraries():
    trainer = logged_rows.trainer(
        Path(model), Path(out), logged_rows.rows(16),
        per_device_train_batch_size=int(micro), gradient_accumulation_steps=int(steps),
        num_train_epochs=3, optim="sgd", learning_rate=0.05, max_grad_norm=0.5, beta=0.02,
        save_strategy="steps" if int(save) else "no", save_steps=max(int(save), 1), save_total_limit=2,
    )
    trainer.train(resume_from_checkpoint=resume or None)
    if trainer.args.process_index == 0:
        trainer.model.save_pretrained(Path(out) / "final")
    trainer.accelerator.end_training()
"""


def replay(
    model: Path,
    out: Path,
    *,
    processes: int = 1,
    micro: int = 8,
    steps: int = 1,
    save: int = 0,
    resume: str = "",
) -> dict[str, torch.Tensor]:
    """The weights of a replay by processes of its own, each on one thread."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    script = out.with_suffix(".py")
    script.write_text(REPLAY, encoding="utf-8")
    arguments = [str(model), str(out), str(micro), str(steps), str(save), resume]
    done = subprocess.run(
        [sys.executable, *(launcher if processes > 1 else []), str(script), *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return load_file(out / "final" / "model.safetensors")


def close(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return all(torch.allclose(one[name], two[name], rtol=0, atol=1e-5) for name in one)


@pytest.fixture(scope="module")
def straight(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """Six updates of 8 rows each in one process."""
    return replay(model, tmp_path_factory.mktemp("straight") / "run")


def test_two_processes_learn_what_one_does(
    straight: dict[str, torch.Tensor], model: Path, tmp_path: Path
) -> None:
    assert close(replay(model, tmp_path / "two", processes=2, micro=4), straight)
    start = load_file(model / "model.safetensors")
    assert not close(start, {name: straight[name] for name in start})  # it moved


def in_process(model: Path, out: Path, resume: str | None = None, **settings: Any) -> list[torch.Tensor]:
    made = logged_rows.trainer(
        model,
        out,
        logged_rows.rows(16),
        **({"per_device_train_batch_size": 8, "num_train_epochs": 3} | settings),
    )
    made.train(resume_from_checkpoint=resume)
    return [parameter.detach().clone() for parameter in made.model.parameters()]


def test_accumulated_gradients_are_those_of_the_whole_batch(model: Path, tmp_path: Path) -> None:
    whole = in_process(model, tmp_path / "whole", optim="sgd")
    parts = in_process(
        model, tmp_path / "parts", optim="sgd", per_device_train_batch_size=2, gradient_accumulation_steps=4
    )
    for one, two in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-5)


def test_a_resumed_replay_ends_where_an_unbroken_one_does(model: Path, tmp_path: Path) -> None:
    saved = {"save_strategy": "steps", "save_steps": 1, "lr_scheduler_type": "cosine"}
    unbroken = in_process(model, tmp_path / "run", **saved)
    for step in (1, 3, 5):  # in the middle of an epoch, and in others
        checkpoint = str(tmp_path / "run" / f"checkpoint-{step}")
        resumed = in_process(model, tmp_path / f"from-{step}", checkpoint, **saved)
        assert all(torch.equal(one, two) for one, two in zip(unbroken, resumed, strict=True)), step
