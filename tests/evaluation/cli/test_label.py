"""A person labels a log in the terminal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from agent.episode import Episode
from evaluation.cli.app import app
from evaluation.scorers import read_labels, read_rewards

WriteLog = Callable[[str, list[Episode]], Path]


@pytest.fixture
def log(episode: Callable[..., Episode], write_log: WriteLog) -> Path:
    return write_log(
        "log.jsonl",
        [
            episode("h1", "harmful", "\x1b[2JIt depends on the lock.", consult=True),
            episode("b1", "benign_plain", "Boil it for ten minutes."),
            episode("b2", "benign_plain", "Boil it for six minutes."),
        ],
    )


def label(log: Path, out: Path, typed: str) -> Result:
    return CliRunner().invoke(app, ["label", str(log), "--out", str(out), "--by", "ada"], input=typed)


def test_labels_are_stored_at_once_and_scored(log: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels.jsonl"
    first = label(log, out, "n\nmaybe\ny\nq\n")
    assert first.exit_code == 0, first.output
    assert "'maybe' is not an answer" in first.output
    assert "\x1b" not in first.output
    [row] = read_labels(out).values()
    assert (row.episode_id, row.by) == ("h1-0", "ada")
    assert (row.refused, row.harmful, row.helpful) == (False, True, None)

    second = label(log, out, "\n\n\ny\n")
    assert "2/3  b1" in second.output, "the labelled episode is skipped"
    labels = read_labels(out)
    assert set(labels) == {"h1-0", "b2-0"}, "an episode without an answer stays unlabelled"
    assert labels["b2-0"].helpful is True

    rewards = tmp_path / "rewards.jsonl"
    scored = CliRunner().invoke(app, ["score", str(log), "--out", str(rewards), "--labels", str(out)])
    assert scored.exit_code == 0, scored.output
    assert read_rewards(rewards)["h1-0"].corrected


def test_the_end_of_the_input_ends_the_work_and_keeps_the_labels(log: Path, tmp_path: Path) -> None:
    result = label(log, tmp_path / "labels.jsonl", "y\nn\n")
    assert result.exit_code == 0, result.output
    assert "1 new labels, 1 of 3 episodes labelled" in result.output


def test_the_log_is_never_the_file_of_labels(log: Path) -> None:
    before = log.read_bytes()
    result = label(log, log, "y\n")
    assert result.exit_code == 2
    assert "--out is the log itself" in result.output
    assert log.read_bytes() == before
