"""`launch` reserves GPUs for the sampler and for the judge, and checks that their models can be split."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from trainer.cli import app

CONFIG = "model: Qwen/Qwen3-8B\njudge: wildguard\njudge_model: judges/guard-7B\n"


def plan(config: str, folder: Path, *options: str) -> tuple[int, dict[str, str], str]:
    file = folder / "run.yaml"
    file.write_text(config, encoding="utf-8")
    command = ["launch", "online", "--config", str(file), "--out", str(folder / "out"), "--dry-run", "--json"]
    result = CliRunner().invoke(app, [*command, *options])
    lines = json.loads(result.stdout)["commands"] if result.exit_code == 0 else []
    return result.exit_code, {line["title"]: line["command"] for line in lines}, result.stderr


def test_the_judge_gets_gpus_of_its_own_and_the_training_its_address(tmp_path: Path) -> None:
    code, commands, _ = plan(CONFIG, tmp_path, "--gpus", "8", "--vllm-gpus", "2", "--judge-gpus", "1")
    assert code == 0
    assert list(commands) == ["the rules", "the sampler", "the judge", "the training"]
    assert commands["the sampler"].startswith("CUDA_VISIBLE_DEVICES=0,1 ")
    assert commands["the judge"].startswith("CUDA_VISIBLE_DEVICES=2 vllm serve judges/guard-7B --port 8001 ")
    assert "CUDA_VISIBLE_DEVICES=3,4,5,6,7" in commands["the training"]
    assert "--num_processes 5" in commands["the training"]
    assert "--judge_url http://127.0.0.1:8001/v1" in commands["the training"]


@pytest.mark.parametrize(
    ("config", "options", "problem"),
    [
        ("model: m\n", ("--judge-gpus", "1"), "set judge, such as judge: wildguard and judge_model: NAME"),
        (
            CONFIG + "judge_url: http://h/v1\n",
            ("--judge-gpus", "1"),
            "judge_url names one that runs already: leave out either",
        ),
        (CONFIG.replace("wildguard", "nobody"), ("--judge-gpus", "1"), "judge: "),
        (CONFIG, ("--vllm-gpus", "7", "--judge-gpus", "1"), "8 of 8 GPUs would serve and none train"),
        (CONFIG, ("--judge-gpus", "1", "--nodes", "2", "--main", "n0"), "needs a machine of its own"),
        (
            CONFIG,
            ("--vllm-gpus", "3"),
            "32 attention heads and 8 key-value heads, which vLLM cannot split over 3 GPUs: "
            "pass --vllm-gpus with one of 1, 2",
        ),
    ],
)
def test_what_cannot_be_served_is_refused_before_anything_starts(
    config: str, options: tuple[str, ...], problem: str, tmp_path: Path
) -> None:
    code, _, stderr = plan(config, tmp_path, "--gpus", "8", *options)
    assert code == 1
    assert problem in stderr
    assert "Traceback" not in stderr
