"""The training guide: its example runs, its flags and recipes exist, and all logged metrics are explained."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from agent.cli.app import app as agent_app
from evaluation.cli.app import app as evaluation_app
from evaluation.prompts import KINDS
from evaluation.scorers.labels import LabelRow
from rule_server.cli.app import app as rules_app
from tests.fakes.endpoints.scripted import ScriptedEndpoint, call
from tests.fakes.models.tiny_llama import save_tiny_llama
from tests.fakes.rules.scripted import ScriptedRules
from trainer.cli.app import app as trainer_app
from trainer.orchestration.gpu_memory import memory_table
from trainer.stages.logged.stage import RECORDED_METRICS as LOGGED_METRICS
from trainer.stages.online.batch_metrics import batch_metrics
from trainer.stages.online.stage import RECORDED_METRICS as ONLINE_METRICS

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "guides" / "training.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```\n(.*?)```", GUIDE, re.DOTALL)
APPS = {"ascl-agent": agent_app, "ascl-eval": evaluation_app, "ascl-train": trainer_app}
COMMANDS = APPS | {"ascl-rules": rules_app}


def invoke(line: str) -> str:
    program, *words = shlex.split(line)
    result = CliRunner().invoke(APPS[program], words, env={"COLUMNS": "200"})
    assert result.exit_code == 0, f"{line}\n{result.output}"
    return result.output


@pytest.fixture
def services() -> Iterator[dict[str, str]]:
    def decide(body: dict[str, Any]) -> Any:
        if body["messages"][-1]["role"] == "tool":
            return "I can't help with that."
        # Consults on every other question.
        return call("the request") if next(turns) % 2 else "Here is how."

    turns = iter(range(10_000))
    with ScriptedRules() as rules, ScriptedEndpoint(otherwise=decide) as endpoint:
        yield {"rules": rules.url, "endpoint": endpoint.base_url}


def test_the_example_runs_from_an_endpoint_to_a_trained_model(
    services: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ASCL_RULES_URL", services["rules"])
    save_tiny_llama(tmp_path / "models" / "smollm2-cold-start")
    rows = [
        {"id": name, "prompt": f"question {name}", "kind": kind}
        for name, kind in (("a", "harmful"), ("b", "benign_plain"))
    ]
    Path("prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (page,) = (block for block in BLOCKS if block.startswith("ascl-agent run"))
    for line in page.replace("http://127.0.0.1:8000/v1", services["endpoint"]).splitlines():
        if " logged " in line:  # long prompts of a byte-level tokenizer
            line += " --max_length 4000 --num_train_epochs 1"
        invoke(line)
    assert Path("runs/ifpo/merged/config.json").is_file()
    assert Path("runs/compared/runs.png").is_file()


@pytest.mark.parametrize(
    "line", [line for block in BLOCKS for line in block.splitlines() if line.startswith("ascl-train launch")]
)
def test_every_launch_example_prints_its_commands(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert "accelerate launch" in invoke(line)


def test_every_command_flag_and_recipe_of_the_guide_exists() -> None:
    helps = ""
    for name, app in COMMANDS.items():
        for verb in set(re.findall(rf"{name} ([a-z][a-z-]*)", GUIDE)):
            group = typer.main.get_command(app)
            assert verb in group.commands, f"{name} {verb}"  # type: ignore[attr-defined]
            helps += CliRunner().invoke(app, [verb, "--help"], env={"COLUMNS": "200"}).output
    for module in sorted(set(re.findall(r"python -m ([a-z_.]+)", GUIDE))):
        command = [sys.executable, "-m", module, "--help"]
        helps += subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    flags = set(re.findall(r"(--[a-z][a-z-]+)", helps))
    foreign = {"--port", "--device", "--dtype", "--judgements", "--enable-lora", "--continuous-batching"}
    foreign |= {"--cb-block-size", "--cb-num-blocks", "--cb-max-batch-tokens"}
    assert set(re.findall(r"(--[a-z][a-z-]+)(?![a-z_-])", GUIDE)) - foreign <= flags
    for recipe in re.findall(r"trainer/recipes/[a-z0-9-]+\.yaml", GUIDE):
        assert (ROOT / recipe).is_file(), recipe


def test_every_logged_metric_is_explained() -> None:
    explained = set(
        re.findall(r"`([A-Za-z_/]+)`", GUIDE.partition("## What to watch")[2].partition("\n## ")[0])
    )
    batch = batch_metrics(["harmful"] * 2, [True, False], [1.0, 0.0], [0, 0], [1.0, 1.0])
    recorded = {
        re.sub(rf"/({'|'.join([*KINDS, 'other'])})$", "/KIND", name)
        for name in (*LOGGED_METRICS, *ONLINE_METRICS)
    }
    named = {name.replace("harmful", "KIND") for name in batch} | recorded
    assert named - {"learning_rate"} <= explained


def test_the_labels_in_the_guide_are_valid() -> None:
    (block,) = (block for block in BLOCKS if '"episode_id"' in block)
    assert len([LabelRow.model_validate_json(line) for line in block.splitlines()]) == 5


def test_the_memory_tables_equal_the_computed_ones() -> None:
    assert memory_table() in GUIDE
    assert memory_table(rank=0) in GUIDE
