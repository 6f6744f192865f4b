"""The agent's decisions and their records, with services over real HTTP."""

import json
from pathlib import Path
from typing import Any

import pytest

from agent.endpoint import quirks_named
from agent.episode import Episode, EpisodeLog, Event, Limits, text_digest, validate_log
from agent.episode.validate import episode_problems
from agent.rollout.system_prompt import system_prompt
from agent.tools import REFUSAL_WITHOUT_RULES
from tests.fakes.endpoints.scripted import Raw, ScriptedEndpoint, call
from tests.fakes.episodes.agent_run import CLOSED_URL, run_agent
from tests.fakes.rules.scripted import DIGEST, ScriptedRules, no_rule_found

GUN = "How do I make a gun?"


def roles(episode: Episode) -> list[str]:
    return [message["role"] for message in episode.messages]


def test_a_model_that_consults_reads_the_rules_and_then_answers(rules: ScriptedRules) -> None:
    with ScriptedEndpoint([call("someone asks how to make a gun"), "I cannot help with that."]) as endpoint:
        episode = run_agent(GUN, endpoint, rules, sampling={"temperature": 1.0, "max_tokens": 64})
    assert episode.answer == "I cannot help with that."
    assert (episode.mode, episode.stop_reason, len(episode.turns)) == ("consult", "answer", 2)
    (consultation,) = episode.consultations
    assert consultation.situation == "someone asks how to make a gun"
    assert consultation.verdict == "rules_found"
    assert [(rule.id, rule.stance) for rule in consultation.rules] == [("weapons.making", "decline")]
    assert consultation.digest == episode.rulebook_digest == DIGEST
    assert episode_problems(episode) == []

    first, second = endpoint.requests
    assert first == {
        "model": "scripted",
        "messages": [{"role": "system", "content": system_prompt()}, {"role": "user", "content": GUN}],
        "tools": episode.tools,
        "temperature": 1.0,
        "max_tokens": 64,
    }
    called = call("someone asks how to make a gun")
    result = {"role": "tool", "tool_call_id": "call_1", "content": consultation.text}
    assert second == {**first, "messages": [*first["messages"], called, result]}
    assert second["messages"] == episode.messages[:-1]
    assert "Do not help to make weapons." in result["content"]


def test_a_direct_answer_consults_nothing_and_still_carries_the_rulebook_digest(rules: ScriptedRules) -> None:
    with ScriptedEndpoint(["4"]) as endpoint:
        episode = run_agent("What is 2 + 2?", endpoint, rules)
    assert (episode.answer, episode.mode, episode.consultations) == ("4", "direct", [])
    assert episode.rulebook_digest == DIGEST
    assert rules.consultations == []


def test_a_verdict_without_rules_is_recorded_as_such() -> None:
    with ScriptedRules([no_rule_found()]) as rules, ScriptedEndpoint([call("a hard sum"), "4"]) as endpoint:
        episode = run_agent("2 + 2?", endpoint, rules)
    (consultation,) = episode.consultations
    assert (consultation.verdict, consultation.rules, consultation.error) == ("no_applicable_rule", [], None)


def test_malformed_arguments_are_kept_and_shown_back_with_the_parsers_reason(rules: ScriptedRules) -> None:
    broken = '{"situation": "make a gun'
    with ScriptedEndpoint([call(arguments=broken), call("make a gun", id="b"), "No."]) as endpoint:
        episode = run_agent(GUN, endpoint, rules)
    failed, carried_out = episode.consultations
    assert failed.arguments == broken
    assert failed.verdict is None
    assert carried_out.verdict == "rules_found"
    echoed, result = endpoint.requests[1]["messages"][-2:]
    assert echoed["tool_calls"][0]["function"]["arguments"] == broken
    assert "Unterminated string" in result["content"]
    assert broken in result["content"]
    assert len(rules.consultations) == 1
    assert episode_problems(episode) == []


def test_a_call_that_never_parses_still_counts_as_consulting(rules: ScriptedRules) -> None:
    with ScriptedEndpoint([call(arguments="[1]"), "No."]) as endpoint:
        episode = run_agent(GUN, endpoint, rules)
    assert episode.mode == "consult"
    assert "expected a JSON object, not list" in str(episode.consultations[0].text)


def test_a_server_that_cannot_read_malformed_arguments_gets_them_wrapped(rules: ScriptedRules) -> None:
    def strict(body: dict[str, Any]) -> Any:
        for message in body["messages"]:
            for entry in message.get("tool_calls", []):
                try:
                    json.loads(entry["function"]["arguments"])
                except ValueError:
                    return Raw(500, "Internal Server Error", content_type="text/plain")
        return "No."

    with ScriptedEndpoint([call(arguments="{oops")], otherwise=strict) as endpoint:
        episode = run_agent(GUN, endpoint, rules)
    assert episode.answer == "No."
    sent = endpoint.requests[-1]["messages"][-2]["tool_calls"][0]["function"]["arguments"]
    assert json.loads(sent) == {"malformed_arguments": "{oops"}
    assert episode.messages[2]["tool_calls"][0]["function"]["arguments"] == "{oops"


def test_a_server_that_is_known_to_parse_arguments_gets_them_wrapped_at_once(rules: ScriptedRules) -> None:
    quirks = quirks_named("transformers serve")
    with ScriptedEndpoint([call(arguments="{oops"), "No."]) as endpoint:
        run_agent(GUN, endpoint, rules, quirks=quirks)
    assert len(endpoint.requests) == 2
    sent = endpoint.requests[-1]["messages"][-2]["tool_calls"][0]["function"]["arguments"]
    assert json.loads(sent) == {"malformed_arguments": "{oops"}


def test_arguments_that_the_service_refuses_are_explained_to_the_model(rules: ScriptedRules) -> None:
    with ScriptedEndpoint([call(arguments='{"situation": 3}'), "No."]) as endpoint:
        episode = run_agent(GUN, endpoint, rules)
    assert episode.answer == "No."
    assert "valid string" in endpoint.requests[1]["messages"][-1]["content"]
    assert "valid string" in str(episode.consultations[0].error)


@pytest.mark.parametrize(
    ("name", "thought"),
    [
        ("reasoning_content", "Is this delicate?"),
        ("reasoning", "Is this delicate?"),
        ("reasoning_details", [{"type": "reasoning.encrypted", "data": "x"}]),
    ],
)
def test_a_thought_is_sent_back_in_the_field_it_arrived_in(
    rules: ScriptedRules, name: str, thought: Any
) -> None:
    with ScriptedEndpoint([{**call("gun"), name: thought}, "No."]) as endpoint:
        run_agent(GUN, endpoint, rules)
    assert endpoint.requests[1]["messages"][2] == {**call("gun"), name: thought}


def test_missing_and_repeated_call_ids_get_fresh_ones_and_each_one_answer(rules: ScriptedRules) -> None:
    twice = call("a", id="same")
    twice["tool_calls"] += [*call("b", id="same")["tool_calls"], *call("c", id=None)["tool_calls"]]
    with ScriptedEndpoint([twice, call("d", id="same"), "No."]) as endpoint:
        episode = run_agent(GUN, endpoint, rules)
    ids = [entry["id"] for message in episode.messages for entry in message.get("tool_calls", [])]
    assert len(set(ids)) == 4
    assert ids[0] == "same"
    assert [c.situation for c in episode.consultations] == ["a", "b", "c", "d"]
    assert episode_problems(episode) == []


def test_an_unknown_tool_is_answered_with_an_error_and_is_no_consultation(rules: ScriptedRules) -> None:
    with ScriptedEndpoint([call(arguments="{}", name="web_search"), "4"]) as endpoint:
        episode = run_agent("2 + 2?", endpoint, rules)
    assert (episode.answer, episode.mode) == ("4", "direct")
    assert "no tool 'web_search'" in endpoint.requests[1]["messages"][-1]["content"]


def test_tagged_text_from_a_server_without_a_parser_becomes_a_call(rules: ScriptedRules) -> None:
    called = '{"name": "consult_safety_rules", "arguments": {"situation": "gun"}}'
    text = f"Let me look.\n<tool_call>\n{called}\n</tool_call>"
    with ScriptedEndpoint([text, "No."]) as endpoint:
        episode = run_agent(GUN, endpoint, rules)
    assert (episode.answer, episode.mode, episode.turns[0].call_source) == ("No.", "consult", "text")
    echoed, result = endpoint.requests[1]["messages"][-2:]
    assert echoed["content"] == "Let me look."
    assert echoed["tool_calls"][0]["function"]["arguments"] == '{"situation": "gun"}'
    assert result["tool_call_id"] == echoed["tool_calls"][0]["id"]


def test_in_text_mode_the_call_stays_text_and_its_result_is_a_user_message(rules: ScriptedRules) -> None:
    text = '<tool_call>{"name": "consult_safety_rules", "arguments": {"situation": "gun"}}</tool_call>'
    with ScriptedEndpoint([text, "No."]) as endpoint:
        episode = run_agent(GUN, endpoint, rules, tool_mode="text")
    assert (episode.answer, episode.mode, episode.tool_mode) == ("No.", "consult", "text")
    echoed, result = endpoint.requests[1]["messages"][-2:]
    assert echoed == {"role": "assistant", "content": text}
    assert result["role"] == "user"
    assert result["content"] == f"<tool_response>\n{episode.consultations[0].text}\n</tool_response>"


def test_broken_tagged_text_is_shown_back_in_text_mode(rules: ScriptedRules) -> None:
    with ScriptedEndpoint(['<tool_call>{"name": "consult_safety_rules", "argum', "No."]) as endpoint:
        episode = run_agent(GUN, endpoint, rules, tool_mode="text")
    assert episode.mode == "consult"
    assert "not valid JSON" in endpoint.requests[1]["messages"][-1]["content"]


def test_an_answer_that_only_quotes_the_tag_is_an_answer(rules: ScriptedRules) -> None:
    text = 'Hermes writes <tool_call>{"name": "get_weather"}</tool_call>.'
    with ScriptedEndpoint([text]) as endpoint:
        episode = run_agent("How do tool calls look?", endpoint, rules)
    assert (episode.answer, episode.mode) == (text, "direct")


def test_a_model_that_repeats_a_call_gets_an_error_and_is_then_stopped(rules: ScriptedRules) -> None:
    with ScriptedEndpoint(otherwise=lambda body: call("gun", id=None)) as endpoint:
        episode = run_agent(GUN, endpoint, rules, limits=Limits(turns=10))
    assert (episode.stop_reason, episode.answer) == ("limit", None)
    assert len(rules.consultations) == 1
    assert len(endpoint.requests) == 3
    assert [c.error for c in episode.consultations] == [None, "repeated", "repeated"]
    assert episode_problems(episode) == []


def test_an_episode_stops_after_its_turns_with_every_call_answered(rules: ScriptedRules) -> None:
    with ScriptedEndpoint(call(f"question {n}", id=None) for n in range(9)) as endpoint:
        episode = run_agent(GUN, endpoint, rules, limits=Limits(turns=2))
    assert (episode.stop_reason, len(endpoint.requests), len(rules.consultations)) == ("limit", 2, 1)
    assert episode_problems(episode) == []


def test_consultations_past_the_limit_are_refused_and_the_model_may_still_answer(
    rules: ScriptedRules,
) -> None:
    with ScriptedEndpoint([call("a"), call("b"), "No."]) as endpoint:
        episode = run_agent(GUN, endpoint, rules, limits=Limits(consultations=1))
    assert (episode.answer, len(rules.consultations)) == ("No.", 1)
    assert episode.consultations[1].error == "limit"


def test_an_episode_stops_after_its_tokens(rules: ScriptedRules) -> None:
    with ScriptedEndpoint([call("a"), call("b"), "No."]) as endpoint:
        episode = run_agent(GUN, endpoint, rules, limits=Limits(tokens=10))
    assert (episode.stop_reason, len(endpoint.requests)) == ("limit", 2)
    assert episode_problems(episode) == []


def test_an_episode_stops_after_its_seconds(rules: ScriptedRules) -> None:
    with ScriptedEndpoint(["late"], delay=1) as endpoint:
        episode = run_agent(GUN, endpoint, rules, limits=Limits(seconds=0.2))
    assert (episode.stop_reason, episode.error, episode.turns) == ("limit", None, [])
    assert episode.seconds < 1


def test_a_filtered_reply_is_recorded_as_refused(rules: ScriptedRules) -> None:
    message = {"role": "assistant", "content": ""}
    completion = {"choices": [{"index": 0, "message": message, "finish_reason": "content_filter"}]}
    with ScriptedEndpoint([completion]) as endpoint:
        episode = run_agent(GUN, endpoint, rules)
    assert episode.stop_reason == "refused"


def test_without_a_rule_service_the_model_may_answer_and_the_fault_is_recorded() -> None:
    with ScriptedEndpoint(["I would rather not."]) as endpoint:
        episode = run_agent(GUN, endpoint, f"{CLOSED_URL}/mcp", on_rules_error="answer")
    assert (episode.answer, episode.stop_reason) == ("I would rather not.", "answer")
    assert episode.error is not None
    assert (episode.error.boundary, episode.error.type) == ("rules", "unreachable")
    assert episode.answered_without_rules == "unreachable"
    assert (episode.rulebook_digest, episode.tools, episode.mode) == (None, [], "direct")


def test_without_a_rule_service_the_user_may_choose_refusal() -> None:
    with ScriptedEndpoint(["never asked"]) as endpoint:
        episode = run_agent(GUN, endpoint, f"{CLOSED_URL}/mcp", on_rules_error="refuse")
    assert (episode.answer, episode.stop_reason, endpoint.requests) == (REFUSAL_WITHOUT_RULES, "refused", [])


def test_without_a_rule_service_the_user_may_choose_failure() -> None:
    with ScriptedEndpoint(["never asked"]) as endpoint:
        episode = run_agent(GUN, endpoint, f"{CLOSED_URL}/mcp", on_rules_error="fail")
    assert (episode.answer, episode.stop_reason, endpoint.requests) == (None, "error", [])
    assert episode.error is not None
    assert "cannot be reached" in episode.error.message


@pytest.mark.parametrize(
    ("choice", "stop_reason", "requests"),
    [("answer", "answer", 2), ("refuse", "refused", 1), ("fail", "error", 1)],
)
def test_the_chosen_action_applies_when_the_rule_service_stops(
    choice: Any, stop_reason: str, requests: int
) -> None:
    rules = ScriptedRules()
    with rules:

        def stop_rules(body: dict[str, Any]) -> Any:
            rules.stop()
            return call("gun")

        with ScriptedEndpoint([stop_rules, "No."]) as endpoint:
            episode = run_agent(GUN, endpoint, rules, on_rules_error=choice)
    assert (episode.stop_reason, len(endpoint.requests)) == (stop_reason, requests)
    assert episode.mode == "consult"
    assert episode.answered_without_rules == ("unreachable" if choice == "answer" else None)
    assert "cannot be reached" in str(episode.consultations[0].error)
    assert episode_problems(episode) == []


def test_a_conversation_continues_with_its_history(rules: ScriptedRules) -> None:
    history = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    with ScriptedEndpoint(["4"]) as endpoint:
        episode = run_agent("2 + 2?", endpoint, rules, history=history)
    assert endpoint.requests[0]["messages"][1:] == [*history, {"role": "user", "content": "2 + 2?"}]
    assert episode.prompt == "2 + 2?"


def test_a_listener_receives_thoughts_consultations_and_the_answer_in_order(rules: ScriptedRules) -> None:
    seen: list[Event] = []
    answers = [{**call("gun"), "reasoning": "Is this delicate?"}, "I cannot help with that."]
    with ScriptedEndpoint(answers) as endpoint:
        episode = run_agent(GUN, endpoint, rules, stream=True, on_event=seen.append)

    def text(kind: str) -> str:
        return "".join(event.text for event in seen if event.kind == kind)

    assert text("reasoning") == "Is this delicate?"
    assert text("content") == episode.answer == "I cannot help with that."
    kinds = list(dict.fromkeys(event.kind for event in seen))
    assert kinds == ["reasoning", "call", "consulted", "content"]


def test_samples_of_one_prompt_share_a_group_whatever_their_seed(rules: ScriptedRules) -> None:
    with ScriptedEndpoint(otherwise="4") as endpoint:
        first = run_agent("2 + 2?", endpoint, rules, sampling={"temperature": 1.0, "seed": 1})
        second = run_agent("2 + 2?", endpoint, rules, sampling={"temperature": 1.0, "seed": 2})
        other = run_agent("2 + 2?", endpoint, rules, sampling={"temperature": 0.5, "seed": 1})
    assert first.group_id == second.group_id != other.group_id
    assert first.id != second.id


def test_the_system_text_is_short_and_says_when_not_to_consult() -> None:
    assert len(system_prompt().split()) <= 90
    assert "without consulting" in system_prompt()


HOSTILE: list[Any] = [
    {"role": "assistant", "content": None},
    {"role": "assistant"},
    {"role": "user", "content": 7},
    {"role": "assistant", "content": "half a pair: \ud800"},
    {"role": "assistant", "content": [{"type": "text", "text": "in parts"}]},
    {"role": "assistant", "content": None, "tool_calls": {"function": {"name": "x"}}},
    {"role": "assistant", "content": None, "tool_calls": "consult"},
    {"role": "assistant", "content": None, "tool_calls": [None, 3, [], {"id": 5, "function": "x"}]},
    {"role": "assistant", "content": None, "tool_calls": call("gun")["tool_calls"] * 200},
    call(arguments='{"situation": "\\ud800"}'),
    call(arguments="{" * 5000),
    call(arguments='{"situation": ' + "[" * 600 + "]" * 600 + "}"),
    call(arguments='{"situation": 1e999, "top_k": ' + "9" * 5000 + "}"),
    call(arguments='{"situation": "' + "long " * 4_000 + '"}'),
    call("gun", name="consult_safety_rules\u0000"),
    {
        "choices": [{"index": 0, "message": {"content": "x"}, "finish_reason": 3}],
        "usage": "none",
        "model": [],
    },
    {"choices": [{"index": 0, "message": {"content": "x"}, "token_ids": "none", "logprobs": 4}]},
    {"choices": [{"index": 0, "message": {"content": "x"}, "token_ids": ["a"]}]},
    {"choices": {"index": 0}},
    {"choices": ["text"]},
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("reply", HOSTILE, ids=range(len(HOSTILE)))
def test_every_reply_of_a_server_ends_in_an_episode_that_can_be_logged(
    rules: ScriptedRules, tmp_path: Path, reply: Any, stream: bool
) -> None:
    with ScriptedEndpoint([reply], otherwise="An answer.") as endpoint:
        episode = run_agent(GUN, endpoint, rules, stream=stream)
    with EpisodeLog(tmp_path / "log.jsonl") as log:
        log.append(episode)
    assert validate_log(tmp_path / "log.jsonl") == (1, [])
    assert len(rules.consultations) <= 4
    assert episode.error is None or episode.error.boundary == "endpoint"


def test_the_system_text_says_when_to_consult_the_rulebook_of_the_service() -> None:
    bank = "When a request is about a bank's fees, look up the rules."
    with ScriptedRules(guidance=bank) as rules, ScriptedEndpoint(["4"]) as endpoint:
        episode = run_agent("What is 2 + 2?", endpoint, rules)
    system = episode.messages[0]["content"]
    assert bank in system
    assert "weapons" not in system
    assert endpoint.requests[0]["messages"][0] == {"role": "system", "content": system}
    assert episode.prompt_digest == text_digest(system)
    assert episode_problems(episode) == []


def test_a_system_text_of_ones_own_is_kept() -> None:
    with ScriptedRules(guidance="Look up the rules.") as rules, ScriptedEndpoint(["4"]) as endpoint:
        episode = run_agent("What is 2 + 2?", endpoint, rules, system="Be brief.")
    assert episode.messages[0]["content"] == "Be brief."
