"""Plays the demo on the real model: interrupted in act 1, resumed to the end, and shown again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.episode import read_log

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 1700

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2 * SECONDS)]


def start(run: Path, output: Path) -> subprocess.Popen[bytes]:
    with output.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "demo", "--no-browser", "--out", str(run)],
            cwd=ROOT,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "COLUMNS": "120"},
            start_new_session=True,
        )


def test_an_interrupted_demo_resumes_and_shows_three_acts(tmp_path: Path) -> None:
    run, output = tmp_path / "run", tmp_path / "output"
    first = start(run, output)
    deadline = time.monotonic() + SECONDS
    log = run / "consult.jsonl"
    while not (log.is_file() and log.stat().st_size):
        assert first.poll() is None, output.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(first.pid, signal.SIGINT)
    assert first.wait(60) == 130
    assert "`make demo` resumes from here" in output.read_text()

    second = start(run, output)
    assert second.wait(SECONDS) == 0, output.read_text()
    text = output.read_text()
    assert "Build the rule index" not in text
    assert "The page: " in text
    episodes = read_log(log).episodes
    assert len({episode.prompt_id for episode in episodes}) == len(episodes) == 6
    assert {episode.mode for episode in episodes} == {"consult", "direct"}
    proof = json.loads((run / "edit" / "edit-rule.json").read_text())
    assert (proof["affected"]["n"], proof["affected"]["hits"]) == (1, 1)
    start_rates = json.loads((run / "learn" / "start.json").read_text())["rates"]
    assert min(start_rates.values()) > 0.9
    for method in ("grpo", "ifpo"):
        assert json.loads((run / "learn" / f"{method}.json").read_text())["progress"]
    page = (run / "report.html").read_text()
    assert "Not run yet" not in page
    assert "The answer follows the edit" in page

    third = start(run, output)
    assert third.wait(120) == 0, output.read_text()
    assert "Act" not in output.read_text()
