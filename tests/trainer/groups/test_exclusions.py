"""Episodes that `prepare` leaves out, by cause and mode, and copies of an episode."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agent.episode import Episode
from evaluation.scorers import score_log, write_rewards
from tests.fakes.episodes.log import make_episode, write_log
from trainer.cli import app
from trainer.groups.parquet import read_groups
from trainer.groups.prepare import PreparedGroups, prepare_groups
from trainer.tokens import ModeLosses

FAULT = {"boundary": "rules", "type": "unreachable", "message": "m"}


def group(prompt: str, consult: int, direct: int, **more: Any) -> list[Episode]:
    """Returns the episodes of one group, consulting ones first."""
    return [
        make_episode(prompt, "benign_plain", "Yes.", sample=sample, consult=sample < consult, **more)
        for sample in range(consult + direct)
    ]


def prepared(
    folder: Path, episodes: list[Episode], unscored: list[str] | None = None
) -> tuple[PreparedGroups, list[str]]:
    """Prepares a log. Returns the result and the notes."""
    log, notes = write_log(folder / "log.jsonl", episodes), list[str]()
    unique = {episode.id: episode for episode in episodes}
    rewards = [reward for reward in score_log(unique.values()) if reward.episode_id not in (unscored or [])]
    write_rewards(folder / "rewards.jsonl", rewards)
    result = prepare_groups(
        log, folder / "rewards.jsonl", folder / "groups.parquet", notify=lambda line: notes.append(line)
    )
    return result, notes


def test_causes_are_counted_by_mode_and_printed_with_a_remedy(tmp_path: Path) -> None:
    episodes = [
        *group("a", 4, 4),
        make_episode("a", sample=20, consult=True, mode_forced=True),
        make_episode("b", sample=0, consult=True),
        make_episode("a", "nonsense", sample=21),
        make_episode("a", sample=22, answer=None, stop_reason="error", error=FAULT, turns=[]),
        make_episode("a", sample=0, consult=True, id="a-0"),
    ]
    result, _ = prepared(tmp_path, episodes, ["a-1", "a-2", "a-4"])
    assert result.left_out_by_mode == {
        "a second episode of that id": {"consult": 1},
        "alone in its group": {"consult": 1},
        "ended in an error": {"undecided": 1},
        "its mode was forced": {"consult": 1},
        "no reward (unknown kind: nonsense)": {"direct": 1},
        "not scored": {"consult": 2, "direct": 1},
    }
    assert result.left_out == {cause: sum(n.values()) for cause, n in result.left_out_by_mode.items()}
    files = [str(tmp_path / name) for name in ("log.jsonl", "rewards.jsonl")]
    printed = CliRunner().invoke(app, ["prepare", *files, "--out", str(tmp_path / "again.parquet")]).stdout
    assert (
        "excluded (not scored): 3 (2 consult, 1 direct). score the whole log with `ascl-eval score`"
        in printed
    )
    losses = ModeLosses.from_record(read_groups(tmp_path / "groups.parquet")[1]["losses"])
    assert losses.record() == result.left_out_by_mode
    assert losses.totals == {"consult": 4, "direct": 5}


@pytest.mark.parametrize(
    ("unscored_consult", "unscored_direct", "warned"),
    [(0, 0, None), (1, 1, None), (1, 0, None), (3, 1, "distorts the comparison"), (6, 5, "refuses to train")],
)
def test_a_warning_says_when_one_mode_loses_more(
    tmp_path: Path, unscored_consult: int, unscored_direct: int, warned: str | None
) -> None:
    episodes = group("a", 10, 10)
    missing = [f"a-{n}" for n in (*range(unscored_consult), *range(10, 10 + unscored_direct))]
    _, notes = prepared(tmp_path, episodes, missing)
    if warned is None:
        assert notes == []
    else:
        (note,) = notes
        assert f"{unscored_consult} of 10 consult episodes are left out (not scored: " in note
        assert f"but {unscored_direct} of 10 direct ones" in note
        assert "score the whole log with `ascl-eval score`" in note
        assert warned in note


def test_consulting_episodes_that_ended_in_an_error_are_lost_unless_a_later_attempt_replaced_them(
    tmp_path: Path,
) -> None:
    def failed(sample: int, attempt: int = 0) -> Episode:
        return make_episode(
            "a", answer=None, sample=sample, id=f"failed-{sample}-{attempt}", consult=True,
            stop_reason="error", error=FAULT,
        )  # fmt: skip

    lost, notes = prepared(tmp_path, [*group("a", 2, 4), *(failed(sample) for sample in range(10, 13))])
    assert lost.left_out_by_mode == {"ended in an error": {"consult": 3}}
    assert "3 of 5 consult episodes are left out (ended in an error: 3)" in notes[0]
    assert "repeat the same `ascl-agent run`" in notes[0]
    retried = [failed(0), failed(1), failed(1, 1), *group("a", 2, 4)]
    kept, notes = prepared(tmp_path, retried)
    assert (kept.left_out, notes) == ({"ended in an error": 3}, [])


def test_episodes_alone_in_their_group_are_no_loss_of_a_mode(tmp_path: Path) -> None:
    episodes = [*group("a", 2, 2), *(make_episode(f"p{n}", consult=True) for n in range(9))]
    result, notes = prepared(tmp_path, episodes)
    assert (result.left_out, notes) == ({"alone in its group": 9}, [])


def test_copies_of_an_episode_under_other_ids_are_counted_in_a_warning(tmp_path: Path) -> None:
    episodes = group("a", 2, 2)
    copies = [episodes[0].model_copy(update={"id": f"copy-{n}"}) for n in range(2)]
    result, (note,) = prepared(tmp_path, [*episodes, *copies])
    assert (result.episodes, result.copies) == (6, 2)
    assert "2 of 6 episodes are copies of another episode under a different id" in note
    assert read_groups(tmp_path / "groups.parquet")[1]["copies"] == 2
    later = [episodes[0].model_copy(update={"id": "later", "started_at": "2026-02-02T00:00:00Z"})]
    result, notes = prepared(tmp_path, [*episodes, *later])
    assert (result.copies, notes) == (0, [])


def test_the_json_of_prepare_holds_the_counts_by_mode(tmp_path: Path) -> None:
    prepared(tmp_path, group("a", 2, 3), ["a-4"])
    files = [str(tmp_path / name) for name in ("log.jsonl", "rewards.jsonl")]
    result = CliRunner().invoke(app, ["prepare", *files, "--out", str(tmp_path / "g.parquet"), "--json"])
    assert json.loads(result.stdout)["left_out_by_mode"] == {"not scored": {"direct": 1}}
