"""A run that is killed, or whose disk is full, resumes from its last good checkpoint to the same weights."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from tests.fakes.models.tiny_llama import save_tiny_llama
from tests.fakes.processes import preloaded
from tests.trainer.stages.logged.test_stage import episodes, grouped
from trainer.cli import app
from trainer.errors import TrainingError
from trainer.stages.checkpoints import begin_or_resume, list_checkpoints

SETTINGS = (
    *("--learning_rate", "0.01", "--per_device_train_batch_size", "2", "--lora_layers", "2"),
    *("--num_train_epochs", "3", "--save_strategy", "steps", "--save_steps", "1", "--save_total_limit", "2"),
    *("--max_drift", "100"),
)
STEPS = 9


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return grouped(tmp_path_factory.mktemp("groups"), episodes())


def arguments(model: Path, groups: Path, out: Path, *more: str) -> list[str]:
    named = ["logged", "--model", str(model), "--groups", str(groups), "--out", str(out)]
    return [*named, *SETTINGS, *more]


def run_in_process(model: Path, groups: Path, out: Path, *more: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, arguments(model, groups, out, *more))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "adapter" / "adapter_model.safetensors")


def same_weights(one: Path, two: Path) -> bool:
    first, second = weights(one), weights(two)
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def unbroken(model: Path, groups: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("unbroken") / "out"
    code, output = run_in_process(model, groups, out)
    assert code == 0, output
    assert [path.name for path in list_checkpoints(out)] == [f"checkpoint-{STEPS - 1}", f"checkpoint-{STEPS}"]
    return out


def run_and_kill(model: Path, groups: Path, out: Path, step: int, delay: float, *more: str) -> int:
    """Kills a run in a separate process `delay` seconds after it reports a step; returns its exit code."""
    read, write = os.pipe()
    with os.fdopen(read) as output, Path(os.devnull).open("wb") as nothing:
        with os.fdopen(write) as errors:
            process = preloaded.start(
                "trainer.cli", *arguments(model, groups, out, *more), stdout=nothing, stderr=errors
            )
        for line in output:
            if f"step {step}/" in line:
                time.sleep(delay)
                process.send_signal(signal.SIGKILL)
                break
    return process.wait(timeout=60)


def kill_repeatedly(model: Path, groups: Path, unbroken: Path, out: Path, kill_count: int, seed: int) -> None:
    """Kills a run several times, each time at a later random step, then lets it finish."""
    rng = random.Random(seed)
    steps = sorted(rng.sample(range(1, STEPS), kill_count))
    for attempt, step in enumerate(steps):
        more = ("--resume",) if attempt else ()
        assert run_and_kill(model, groups, out, step, rng.uniform(0, 0.1), *more) == -signal.SIGKILL, step
        assert (out / "tokens" / "tokens.arrow").is_file()
    code, output = run_in_process(model, groups, out, "--resume")
    assert code == 0, output
    assert "resuming from" in output
    assert same_weights(out, unbroken)
    assert json.loads((out / "run.json").read_text())["steps"][-1]["step"] == STEPS
    assert not list(out.glob(".partial")) + list(out.glob(".*.partial"))
    assert not (out / "tokens").exists()


def test_a_run_killed_twice_ends_with_the_weights_of_an_uninterrupted_one(
    model: Path, groups: Path, unbroken: Path, tmp_path: Path
) -> None:
    kill_repeatedly(
        model, groups, unbroken, tmp_path / "out", kill_count=2, seed=int(os.environ.get("KILL_SEED", "1"))
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_five_kills_at_random_steps_change_nothing(
    seed: int, model: Path, groups: Path, unbroken: Path, tmp_path: Path
) -> None:
    kill_repeatedly(model, groups, unbroken, tmp_path / "out", kill_count=5, seed=100 + seed)


def test_a_partial_checkpoint_of_a_killed_run_is_ignored(
    model: Path, groups: Path, unbroken: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    code, _ = run_in_process(model, groups, out, "--max_steps", "4")
    assert code == 0
    (out / ".partial" / "checkpoint-5").mkdir(parents=True)
    (out / ".partial" / "checkpoint-5" / "adapter_model.safetensors").write_bytes(b"half")
    code, output = run_in_process(model, groups, out, "--max_steps", "4", "--resume")
    assert code == 0, output
    assert "resuming from" in output
    assert "checkpoint-4" in output


def test_a_full_disk_is_reported_and_the_last_good_checkpoint_remains(
    model: Path, groups: Path, unbroken: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = preloaded.run(
        "tests.fakes.models.full_disk", *arguments(model, groups, out), package="trainer", timeout=120
    )
    assert result.returncode == 1, result.stderr[-2000:]
    assert "Traceback" not in result.stderr
    assert "the checkpoint of step 4 cannot be written" in result.stderr
    assert "the last good one is" in result.stderr
    assert "--resume" in result.stderr
    assert [path.name for path in list_checkpoints(out)] == ["checkpoint-2", "checkpoint-3"]
    assert not (out / ".partial").exists()
    code, output = run_in_process(model, groups, out, "--resume")
    assert code == 0, output
    assert same_weights(out, unbroken)


def test_a_new_run_refuses_a_folder_with_checkpoints_of_another(
    model: Path, groups: Path, unbroken: Path, tmp_path: Path
) -> None:
    code, output = run_in_process(model, groups, unbroken)
    assert code == 1
    assert "run.json already exists: choose another --out, or pass --overwrite" in output
    code, output = run_in_process(model, groups, unbroken, "--overwrite")
    assert code == 1
    assert "holds checkpoints of an earlier run" in output
    assert "pass --resume" in output


def test_a_run_cannot_be_resumed_with_other_settings(model: Path, groups: Path, unbroken: Path) -> None:
    code, output = run_in_process(model, groups, unbroken, "--resume", "--learning_rate", "0.02")
    assert code == 1
    assert "was started with learning_rate = 0.01, not 0.02" in output


def test_resuming_a_finished_run_leaves_its_weights_unchanged(
    model: Path, groups: Path, unbroken: Path
) -> None:
    before = weights(unbroken)
    code, output = run_in_process(model, groups, unbroken, "--resume")
    assert code == 0, output
    assert all(torch.equal(before[name], value) for name, value in weights(unbroken).items())


def test_resuming_without_a_checkpoint_starts_a_new_run_and_reports_it(
    model: Path, groups: Path, unbroken: Path, tmp_path: Path
) -> None:
    code, output = run_in_process(model, groups, tmp_path / "out", "--resume")
    assert code == 0, output
    assert "holds no checkpoint: starting a new run" in output
    assert same_weights(tmp_path / "out", unbroken)


def test_only_the_first_of_several_processes_writes_the_plan(tmp_path: Path) -> None:
    assert begin_or_resume(tmp_path / "out", {"seed": 0}, resume=False, first=False) is None
    assert not (tmp_path / "out").exists()
    assert begin_or_resume(tmp_path / "out", {"seed": 0}, resume=False) is None
    assert json.loads((tmp_path / "out" / "plan.json").read_text(encoding="utf-8")) == {"seed": 0}


def test_the_record_of_an_earlier_run_remains_until_another_run_saves(
    model: Path, groups: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that fails before saving leaves the files of the record unchanged."""
    out, broken = tmp_path / "out", tmp_path / "broken"
    once = ("--max_steps", "1", "--save_strategy", "no")
    code, output = run_in_process(model, groups, out, *once)
    assert code == 0, output
    good = (out / "run.json").read_bytes()
    shutil.copytree(model, broken)
    (broken / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes()[:1000])
    code, output = run_in_process(broken, groups, out, *once, "--overwrite")
    assert code == 1
    assert f"the weights of the model '{broken}' cannot be read" in output
    assert (out / "run.json").read_bytes() == good

    def raise_disk_full(*_: object) -> None:
        raise TrainingError("no room")

    monkeypatch.setattr("trainer.stages.model_io.save_adapter", raise_disk_full)
    code, output = run_in_process(model, groups, out, *once, "--overwrite")
    assert code == 1
    assert not (out / "run.json").exists()
