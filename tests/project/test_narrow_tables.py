"""Tables fit 80 columns: numbers keep their width, long names and texts are cut with an ellipsis."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pytest
from rich.cells import cell_len
from typer.testing import CliRunner

from agent.episode import Episode
from tests.fakes.episodes.log import make_episode, write_log

LONG = "a-prompt-with-a-name-that-is-much-longer-than-any-terminal-is-wide-and-then-some"
NAME = LONG[:40]


def run(package: str, *arguments: object, width: int | None = 80) -> str:
    app = import_module(f"{package}.cli.app").app
    env = {"COLUMNS": str(width) if width else ""}
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env=env)
    assert result.exit_code == 0, result.output
    return result.stdout


def assert_fits(output: str, *, tables: int = 10_000) -> None:
    """Checks the lines of tables; sentences are wrapped by the terminal itself."""
    for line in output.splitlines()[:tables]:
        assert cell_len(line) <= 80, line


@pytest.fixture
def log(tmp_path: Path) -> Path:
    episodes = [
        make_episode(
            f"{LONG}-{kind}-{n}", kind, f"An answer. {LONG}", sample=sample, consult=bool(sample), **more
        )
        for n in range(3)
        for sample in range(2)
        for kind, more in (("harmful", {}), ("benign_plain", {}))
    ]
    unique: list[Episode] = []
    for number, each in enumerate(episodes):
        unique.append(each.model_copy(update={"id": f"{number:08d}-{LONG}"}))
    return write_log(tmp_path / f"{LONG}.jsonl", unique)


@pytest.fixture
def rewards(log: Path, tmp_path: Path) -> Path:
    out = tmp_path / "rewards.jsonl"
    run("evaluation", "score", log, "--out", out)
    return out


def test_the_list_of_episodes_shortens_ids_and_answers_only(log: Path) -> None:
    output = run("agent", "show", log)
    assert_fits(output)
    first = output.splitlines()[1]
    assert first.startswith("00000000  a-prompt")
    assert "…" in first
    assert "direct" in first
    assert "answer" in first


def test_a_pipe_gets_whole_texts(log: Path) -> None:
    assert LONG in run("agent", "show", log, width=None)


def test_the_quirks_table_becomes_paragraphs() -> None:
    output = run("agent", "quirks")
    assert_fits(output)
    assert "\nOpenAI" in "\n" + output


def test_statistics_of_groups_keep_their_numbers(log: Path, rewards: Path, tmp_path: Path) -> None:
    groups = tmp_path / "groups.parquet"
    prepared = run("trainer", "prepare", log, rewards, "--out", groups)
    assert "0.50 [" in prepared
    assert_fits(run("trainer", "stats", groups), tables=16)


def test_a_report_and_a_comparison_keep_their_numbers(log: Path, rewards: Path, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        arms = ("--arm", f"{NAME}={log}:{rewards}", "--arm", f"after={log}:{rewards}")
        output = run("evaluation", "report", *arms, "--out", tmp_path / folder)
        table = output.split("\n- ")[0]
        assert_fits(table)
        assert table.count("50.0% [") == 4
        assert "mean reward" in table
        assert "…" in table
    assert_fits(run("evaluation", "compare", tmp_path / "one", tmp_path / "two"))
    assert run("evaluation", "compare", tmp_path / "one", tmp_path / "two", width=None).startswith("| arm")


def test_agreement_with_labels_fits(tmp_path: Path) -> None:
    data = tmp_path / "labelled.jsonl"
    row = {"prompt": "p", "response": "No.", "label": "refusal", "model": LONG}
    data.write_text(json.dumps(row) + "\n", encoding="utf-8")
    assert_fits(run("evaluation", "judge", "agree", "--data", data))
