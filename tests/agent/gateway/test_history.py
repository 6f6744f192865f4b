"""Conversations of several turns through the gateway, as episodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.episode import Episode, digest_of, episode_messages, read_log, text_digest, validate_log
from tests.fakes.endpoints.scripted import call
from tests.fakes.processes.gateway import post, run_gateway, upstream
from tests.fakes.rules.scripted import ScriptedRules

QUESTION = {"role": "user", "content": "And how do I do it?"}
WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}


def turn(question: str, answer: str) -> list[dict[str, Any]]:
    """Returns an earlier turn of a conversation."""
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def log_of(
    folder: Path, rules: ScriptedRules, conversations: list[list[Any]], *answers: Any, **body: Any
) -> list[Episode]:
    """Sends conversations through a gateway and returns their episodes."""
    log = folder / "log.jsonl"
    with upstream(*answers) as endpoint, run_gateway(endpoint, rules, log=log) as gateway:
        for messages in conversations:
            post(gateway, {"messages": messages, "temperature": 1.0, **body})
    assert validate_log(log) == (len(conversations), [])
    return read_log(log).episodes


def test_conversations_with_the_same_last_message_and_other_earlier_turns_are_different_groups(
    rules: ScriptedRules, tmp_path: Path
) -> None:
    locks, cakes = turn("How do locks work?", "With pins."), turn("How do cakes rise?", "With gas.")
    one, again, other, first = log_of(
        tmp_path,
        rules,
        [[*locks, QUESTION], [*locks, QUESTION], [*cakes, QUESTION], [QUESTION]],
        *["Like this."] * 4,
    )
    assert one.group_id == again.group_id
    assert one.prompt_id == again.prompt_id
    assert len({one.group_id, other.group_id, first.group_id}) == 3
    assert len({one.prompt_id, other.prompt_id, first.prompt_id}) == 3
    assert {episode.prompt for episode in (one, other, first)} == {QUESTION["content"]}


def test_a_conversation_of_one_turn_is_logged_as_before(rules: ScriptedRules, tmp_path: Path) -> None:
    system = {"role": "system", "content": "Be brief."}
    parts = {"role": "user", "content": [{"type": "text", "text": str(QUESTION["content"])}]}
    for name, question in (("text", QUESTION), ("parts", parts)):
        (tmp_path / name).mkdir()
        (episode,) = log_of(tmp_path / name, rules, [[system, question]], call("how"), "Like this.")
        assert episode.group_id == digest_of(
            [
                text_digest(episode.prompt),
                episode.model_requested,
                "gateway",
                episode.rulebook_digest,
                {"temperature": 1.0},
                episode.tools,
                text_digest("Be brief."),
            ]
        )
        assert episode.prompt_id == text_digest(str(QUESTION["content"]))[:16]
        assert "given_messages" not in (tmp_path / name / "log.jsonl").read_text(encoding="utf-8")
        assert episode_messages(episode) == episode.messages[2:]


def test_only_what_was_written_for_a_request_belongs_to_its_episode(
    rules: ScriptedRules, tmp_path: Path
) -> None:
    asked = {"role": "assistant", "content": None, **call("locks", id="w1", name="get_weather")}
    told = {"role": "tool", "tool_call_id": "w1", "content": "rain"}
    (episode,) = log_of(
        tmp_path, rules, [[QUESTION, asked, told]], call("how"), "Like this.", tools=[WEATHER]
    )
    assert episode.given_messages == 3
    assert [message["role"] for message in episode_messages(episode)] == ["assistant", "tool", "assistant"]
    assert episode.mode == "consult"
    earlier = episode.model_copy(update={"given_messages": None})  # a log of an earlier version
    assert episode_messages(earlier) == episode_messages(episode)


def test_a_call_of_the_rule_tool_in_earlier_turns_does_not_set_the_mode(
    rules: ScriptedRules, tmp_path: Path
) -> None:
    consulted = [
        {"role": "user", "content": "How do locks work?"},
        call("locks", id="c9"),
        {"role": "tool", "tool_call_id": "c9", "content": "A rule"},
        {"role": "assistant", "content": "With pins."},
        QUESTION,
    ]
    (episode,) = log_of(tmp_path, rules, [consulted], "Like this.")
    assert (episode.mode, episode.consultations) == ("direct", [])
    assert episode_messages(episode) == [{"role": "assistant", "content": "Like this."}]


@pytest.mark.parametrize("content", ["How do I do it?", None])
def test_prompts_that_differ_in_an_image_are_different_groups(
    rules: ScriptedRules, tmp_path: Path, content: str | None
) -> None:
    def asked(image: str) -> list[dict[str, Any]]:
        parts = [{"type": "text", "text": content}] if content else []
        return [{"role": "user", "content": [*parts, {"type": "image_url", "image_url": {"url": image}}]}]

    one, other, again = log_of(tmp_path, rules, [asked("a"), asked("b"), asked("a")], *["Yes."] * 3)
    assert one.group_id == again.group_id != other.group_id


def test_a_response_that_continues_a_stored_one_is_in_another_group(
    rules: ScriptedRules, tmp_path: Path
) -> None:
    from tests.fakes.endpoints.responses import message_item, response_with

    log = tmp_path / "log.jsonl"
    answers = [response_with(message_item("Like this.")) for _ in range(4)]
    earlier = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    bodies: list[dict[str, Any]] = [
        {"input": "And how?"},
        {"input": "And how?", "previous_response_id": "resp_1"},
        {"input": "And how?", "previous_response_id": "resp_2"},
        {"input": [*earlier, {"role": "user", "content": "And how?"}]},
    ]
    with upstream(*answers) as endpoint, run_gateway(endpoint, rules, log=log) as gateway:
        for body in bodies:
            post(gateway, body, path="/responses")
    episodes = read_log(log).episodes
    assert len({episode.group_id for episode in episodes}) == 4
    assert [episode.given_messages for episode in episodes] == [None, None, None, 3]
