"""Groups of conversations: episodes are compared only after the same earlier turns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent.episode import Episode
from evaluation.scorers import format_faults, score_log, write_rewards
from tests.fakes.episodes.log import make_episode, write_log
from trainer.groups.parquet import read_groups
from trainer.groups.prepare import prepare_groups

CALL = {"name": "consult_safety_rules", "arguments": '{"situation": "s"}'}


def continued(earlier: str, sample: int, *, consult: bool = False, **more: Any) -> Episode:
    """Returns an episode that continues a conversation in which the rules were consulted."""
    episode = make_episode("p", "benign_plain", f"Answer {sample}.", sample=sample, consult=consult, **more)
    history = [
        {"role": "user", "content": earlier},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "c0", "type": "function", "function": CALL}],
        },
        {"role": "tool", "tool_call_id": "c0", "content": "A rule"},
        {"role": "assistant", "content": "With pins."},
    ]
    return episode.model_copy(update={"messages": [*history, *episode.messages], "id": f"{earlier}-{sample}"})


def groups_of(folder: Path, episodes: list[Episode]) -> dict[str, list[Any]]:
    log = write_log(folder / "log.jsonl", episodes)
    write_rewards(folder / "rewards.jsonl", score_log(episodes))
    prepare_groups(log, folder / "rewards.jsonl", folder / "groups.parquet")
    return read_groups(folder / "groups.parquet")[0]


@pytest.mark.parametrize("given", [None, 5])
@pytest.mark.parametrize("source", ["agent", "gateway"])
def test_a_log_that_gave_two_conversations_one_group_is_divided(
    tmp_path: Path, given: int | None, source: str
) -> None:
    more = {"given_messages": given, "source": source}
    episodes = [continued(name, sample, **more) for sample in range(2) for name in ("locks", "cakes")]
    columns = groups_of(tmp_path, [*episodes, make_episode("p", sample=5), make_episode("p", sample=6)])
    locks, cakes = columns["group_id"][0], columns["group_id"][1]
    assert columns["group_id"] == [locks, cakes, locks, cakes, "p", "p"]
    assert len({locks, cakes, "p"}) == 3
    assert columns["given_messages"] == [5, 5, 5, 5, None, None]


def test_an_application_that_called_its_own_tools_continues_a_conversation(tmp_path: Path) -> None:
    function = {"name": "get_weather", "arguments": "{}"}
    asked = {"role": "assistant", "tool_calls": [{"id": "w", "type": "function", "function": function}]}
    episodes = []
    for sample in range(2):
        episode = make_episode("p", sample=sample, source="gateway")
        told = {"role": "tool", "tool_call_id": "w", "content": "rain"}
        messages = [episode.messages[0], asked, told, *episode.messages[1:]]
        episodes.append(episode.model_copy(update={"messages": messages}))
    assert groups_of(tmp_path, episodes)["given_messages"] == [3, 3]


def test_a_malformed_call_in_an_earlier_turn_is_no_fault_of_the_episode() -> None:
    episode = continued("locks", 0)
    episode.messages[1]["tool_calls"][0]["function"] = {**CALL, "arguments": '{"situation": '}
    assert format_faults(episode) == ()
    own = make_episode("p", consult=True, arguments='{"situation": ')
    assert format_faults(own) == ("malformed call",)


def test_a_log_without_earlier_turns_gives_the_groups_of_the_log(tmp_path: Path) -> None:
    episodes = [make_episode(name, sample=sample) for name in "ab" for sample in range(2)]
    columns = groups_of(tmp_path, episodes)
    assert columns["group_id"] == ["a", "a", "b", "b"]
    assert columns["given_messages"] == [None] * 4
    assert json.loads(columns["messages"][0]) == episodes[0].messages
