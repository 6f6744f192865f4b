"""Prompts that continue a conversation, as episodes."""

from __future__ import annotations

from typing import Any

from agent.episode import episode_messages
from tests.fakes.endpoints.scripted import ScriptedEndpoint, call
from tests.fakes.episodes.agent_run import run_agent
from tests.fakes.rules.scripted import ScriptedRules

HISTORY = [
    {"role": "user", "content": "How do locks work?"},
    call("locks", id="c1"),
    {"role": "tool", "tool_call_id": "c1", "content": "A rule"},
    {"role": "assistant", "content": "With pins."},
]


def test_an_episode_consists_of_what_follows_its_prompt(rules: ScriptedRules) -> None:
    with ScriptedEndpoint(["By hand.", call("picking"), "By hand."]) as endpoint:
        direct = run_agent("And how?", endpoint, rules, history=HISTORY)
        consulting = run_agent("And how?", endpoint, rules, history=HISTORY)
    assert (direct.mode, consulting.mode) == ("direct", "consult")
    assert direct.given_messages == consulting.given_messages == 6
    assert [message["role"] for message in episode_messages(consulting)] == ["assistant", "tool", "assistant"]
    assert direct.group_id == consulting.group_id
    assert direct.prompt_id == consulting.prompt_id


def test_results_in_text_mode_belong_to_the_episode(rules: ScriptedRules) -> None:
    tagged = '<tool_call>{"name": "consult_safety_rules", "arguments": {"situation": "s"}}</tool_call>'
    with ScriptedEndpoint([tagged, "By hand."]) as endpoint:
        episode = run_agent("And how?", endpoint, rules, tool_mode="text")
    assert [message["role"] for message in episode_messages(episode)] == ["assistant", "user", "assistant"]


def test_samples_of_a_prompt_share_a_group_only_after_the_same_messages(rules: ScriptedRules) -> None:
    other: list[Any] = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    with ScriptedEndpoint(otherwise="By hand.") as endpoint:
        episodes = [
            run_agent("And how?", endpoint, rules, history=history)
            for history in (HISTORY, HISTORY, other, [], None)
        ]
    groups = [episode.group_id for episode in episodes]
    assert groups[0] == groups[1]
    assert groups[3] == groups[4]
    assert len(set(groups)) == 3
    assert '"given_messages"' not in episodes[4].model_dump_json()
