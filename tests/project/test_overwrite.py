"""Results of a finished run are never replaced unasked: commands with --out need --overwrite for that."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.fakes.episodes.log import make_episode

# Each command with the result that a finished run has written; OUT is the folder or file of --out.
CASES = {
    "agent export LOG --to trl": "",
    "agent redact LOG": "",
    "evaluation score LOG": "",
    "evaluation judge run LOG --judge rubric --base-url http://h/v1 --model m": "",
    "evaluation report --arm a=LOG": "summary.json",
    "evaluation edit-rule --rule a.b --base-url http://h/v1 --model m": "edit-rule.json",
    "trainer prepare LOG LOG": "",
    "trainer sft --model m": "run.json",
    "trainer logged --model m --groups LOG": "run.json",
    "trainer online --model m --bf16 false --use_cpu true": "run.json",
    "trainer launch online --model m --config CONFIG --gpus 0": "run.json",
    "trainer plot LOG": "runs.html",
}


@pytest.mark.parametrize("command", CASES)
def test_results_of_a_finished_run_are_not_replaced_unasked(command: str, tmp_path: Path) -> None:
    log, config, out = tmp_path / "log.jsonl", tmp_path / "config.yaml", tmp_path / "out"
    log.write_text(make_episode("a").model_dump_json() + "\n", encoding="utf-8")
    config.write_text("model: m\n", encoding="utf-8")
    result = out / CASES[command] if CASES[command] else out
    result.parent.mkdir(exist_ok=True)
    result.write_text("kept", encoding="utf-8")
    package, *words = command.split()
    places = {"LOG": str(log), "CONFIG": str(config)}
    words = [places.get(word, word.replace("=LOG", f"={log}")) for word in words]
    run = CliRunner().invoke(import_module(f"{package}.cli.app").app, [*words, "--out", str(out)])
    assert f"{result} already exists: choose another --out, or pass --overwrite" in run.stderr
    assert run.exit_code == 1
    assert result.read_text(encoding="utf-8") == "kept"


def test_overwrite_replaces_the_results(tmp_path: Path) -> None:
    log, out = tmp_path / "log.jsonl", tmp_path / "rewards.jsonl"
    log.write_text(make_episode("a").model_dump_json() + "\n", encoding="utf-8")
    out.write_text("old", encoding="utf-8")
    app = import_module("evaluation.cli.app").app
    run = CliRunner().invoke(app, ["score", str(log), "--out", str(out), "--overwrite"])
    assert run.exit_code == 0
    assert "old" not in out.read_text(encoding="utf-8")
