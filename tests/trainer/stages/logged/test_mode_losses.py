"""Episodes that cannot be trained on are counted by mode, before advantages are computed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.fakes.episodes.groups import write_groups
from tests.fakes.episodes.log import make_episode
from tests.fakes.models.tiny_llama import tiny_tokenizer
from trainer.errors import TrainingError
from trainer.ifpo import ifpo_advantages
from trainer.stages.logged.config import LoggedArguments, LoggedConfig
from trainer.stages.logged.dataset import LoggedDataset, build_dataset, read_logged_groups
from trainer.tokens import ModeLosses

LONG = "word " * 100
SETTINGS = {"alpha": 1.0, "w_max": 4.0, "baseline": "balanced", "scale_rewards": "group", "eps": 1e-4}


@pytest.fixture
def dataset(tmp_path: Path) -> Callable[..., LoggedDataset]:
    """Builds the dataset of one group from the answers of its episodes; rewards are 0, 1, 2, ..."""

    def build(consult: list[str], direct: list[str], max_length: int = 300) -> LoggedDataset:
        episodes = [make_episode(answer=answer, consult=True) for answer in consult]
        episodes += [make_episode(answer=answer) for answer in direct]
        rows = [
            {
                "messages": json.dumps(episode.messages),
                "turns": json.dumps([turn.model_dump() for turn in episode.turns]),
                "reward": float(number),
                "mode": episode.mode,
                "episode_id": f"e{number}",
                "group_id": "g",
                "consultations": int(episode.mode == "consult"),
            }
            for number, episode in enumerate(episodes)
        ]
        path = write_groups(tmp_path / "groups.parquet", rows)
        arguments = LoggedArguments(model="m", groups=str(path), max_length=max_length)
        groups = read_logged_groups(arguments, lambda line: None)
        return build_dataset(groups, tiny_tokenizer(), arguments, LoggedConfig(output_dir=str(tmp_path)))

    return build


def test_advantages_are_those_of_the_groups_without_the_episodes_left_out(
    dataset: Callable[..., LoggedDataset],
) -> None:
    built = dataset(["Yes."] * 5 + [LONG], ["No."] * 6)
    assert built.left_out == {"longer than 300 tokens": 1}
    modes, rewards = ["consult"] * 5 + ["direct"] * 6, [0.0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    expected = ifpo_advantages(np.array(rewards), np.array(modes), np.array(["g"] * 11), **SETTINGS)
    assert [row["advantage"] for row in built.rows] == pytest.approx(expected.tolist())
    assert sum(row["advantage"] for row in built.rows) == pytest.approx(0, abs=1e-9)
    assert built.usable == [0, 1, 2, 3, 4, *range(6, 12)]


def test_the_last_episode_of_a_group_has_no_advantage(dataset: Callable[..., LoggedDataset]) -> None:
    with pytest.raises(TrainingError, match="no advantage: 1"):
        dataset([], [LONG, "Yes."])


@pytest.mark.parametrize(
    ("consult", "direct"),
    [(["Yes.", LONG, LONG], ["No."] * 3), ([LONG], ["No."] * 3), ([LONG] * 2, ["No.", LONG])],
)
def test_a_run_that_would_lose_a_mode_or_most_of_it_is_refused_with_the_remedy(
    consult: list[str], direct: list[str], dataset: Callable[..., LoggedDataset]
) -> None:
    with pytest.raises(TrainingError) as caught:
        dataset(consult, direct)
    message = str(caught.value)
    lost = consult.count(LONG)
    assert (
        f"{lost} of {len(consult)} consult episodes are left out (longer than 300 tokens: {lost})" in message
    )
    limit = int(message.rpartition("--max_length ")[2].split()[0])
    assert dataset(consult, direct, max_length=limit).left_out.total() == 0


def test_shares_that_differ_by_more_than_ten_points_give_a_warning_and_are_counted_by_mode(
    dataset: Callable[..., LoggedDataset],
) -> None:
    built = dataset(["Yes."] * 4 + [LONG], ["No."] * 5)
    assert built.details[0].startswith("warning: 1 of 5 consult episodes are left out")
    assert "--max_length" in built.details[0]
    assert built.losses.record() == {"longer than 300 tokens": {"consult": 1}}
    assert "longer than 300 tokens: 1 (1 consult, 0 direct)" in built.summary()
    balanced = dataset(["Yes."] * 4 + [LONG], ["No."] * 4 + [LONG])
    assert not any(detail.startswith("warning") for detail in balanced.details)


def losses(consult: tuple[int, int], direct: tuple[int, int]) -> ModeLosses:
    """Returns losses from (left out, total) by mode."""
    counted = ModeLosses()
    for mode, (left_out, total) in (("consult", consult), ("direct", direct)):
        counted.totals[mode] += total
        for _ in range(left_out):
            counted.leave_out("too long", mode)
    return counted


@pytest.mark.parametrize(
    ("consult", "direct", "outcome"),
    [
        ((0, 9), (0, 9), None),
        ((1, 10), (0, 10), None),
        ((2, 10), (0, 10), "warning"),
        ((0, 10), (2, 10), "warning"),
        ((5, 10), (0, 10), "warning"),
        ((6, 10), (5, 10), "problem"),
        ((6, 10), (6, 10), None),
        ((8, 10), (6, 10), "warning"),
        ((10, 10), (6, 10), "problem"),
        ((6, 10), (10, 10), "problem"),
        ((10, 10), (10, 10), None),
        ((5, 5), (0, 0), None),
        ((0, 0), (0, 0), None),
    ],
)
def test_the_limits_of_problem_and_warning(
    consult: tuple[int, int], direct: tuple[int, int], outcome: str | None
) -> None:
    counted = losses(consult, direct)
    problem, warning = counted.problem({"too long": "shorten"}), counted.warning({"too long": "shorten"})
    assert (problem is not None) == (outcome == "problem")
    if outcome == "warning":
        assert warning is not None
    if outcome is None:
        assert warning is None
    assert all(message.endswith("shorten") for message in (problem, warning) if message)
