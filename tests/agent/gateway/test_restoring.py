"""Consultations that return into a later request: only into the conversation that they were made in."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes.endpoints.responses import call_item, message_item, reasoning_item, response_with
from tests.fakes.endpoints.scripted import call
from tests.fakes.processes.gateway import RunningGateway, post, run_gateway, upstream
from tests.fakes.rules.scripted import ScriptedRules

ID = "functions.get_weather:0"
CHAT_TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
TOOL = {"type": "function", "name": "get_weather", "parameters": {"type": "object"}}
WEATHER = '{"city": "Oslo"}'


def weather_item(id: str = ID) -> dict[str, Any]:
    return call_item(name="get_weather", arguments=WEATHER, id=id)


def weather(id: str = ID) -> dict[str, Any]:
    return call(arguments=WEATHER, name="get_weather", id=id)


def mixed(situation: str) -> dict[str, Any]:
    entries = [*call(situation, id="functions.consult:0")["tool_calls"], *weather()["tool_calls"]]
    return {"role": "assistant", "content": None, "tool_calls": entries}


def ask(gateway: RunningGateway, *items: dict[str, Any], **fields: Any) -> dict[str, Any]:
    reply = post(gateway, {"input": list(items), "tools": [TOOL], **fields}, path="/responses")
    assert reply.status_code == 200, reply.text
    body: dict[str, Any] = reply.json()
    return body


def ask_chat(gateway: RunningGateway, *messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
    reply = post(gateway, {"messages": list(messages), "tools": [CHAT_TOOL], **fields})
    assert reply.status_code == 200, reply.text
    body: dict[str, Any] = reply.json()
    return body


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


OUTPUT = {"type": "function_call_output", "call_id": ID, "output": "Rain"}
RESULT = {"role": "tool", "tool_call_id": ID, "content": "Rain"}


@pytest.mark.parametrize("where", ["input", "instructions", "user"])
def test_an_item_is_not_restored_in_a_conversation_with_the_same_call_id(
    rules: ScriptedRules, where: str
) -> None:
    def fields(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
        question = user(f"I am {name}. The weather in Oslo?" if where == "input" else "The weather in Oslo?")
        return question, {} if where == "input" else {where: f"This is {name}."}

    alice, alice_fields = fields("Alice")
    bob, bob_fields = fields("Bob")
    first = response_with(call_item("Alice is in danger"), weather_item())
    with (
        upstream(first, response_with(weather_item()), response_with(message_item("Rain."))) as endpoint,
        run_gateway(endpoint, rules) as gateway,
    ):
        ask(gateway, alice, **alice_fields)
        items = ask(gateway, bob, **bob_fields)["output"]
        ask(gateway, bob, *items, OUTPUT, **bob_fields)
    assert endpoint.requests[2]["input"] == [bob, *items, OUTPUT]


def test_a_chat_reply_is_not_restored_in_a_conversation_that_only_ends_alike(rules: ScriptedRules) -> None:
    question = user("And the weather in Oslo?")
    with (
        upstream(mixed("Alice is in danger"), weather(), "Rain.") as endpoint,
        run_gateway(endpoint, rules) as gateway,
    ):
        ask_chat(gateway, user("I am Alice."), {"role": "assistant", "content": "Hello."}, question)
        history = [user("I am Bob."), {"role": "assistant", "content": "Hello."}, question]
        message = ask_chat(gateway, *history)["choices"][0]["message"]
        ask_chat(gateway, *history, message, RESULT)
    assert endpoint.requests[2]["messages"] == [*history, message, RESULT]


@pytest.mark.parametrize("replies", ["two consultations", "mixed, then plain", "plain, then mixed"])
def test_an_ambiguous_reply_is_not_restored(rules: ScriptedRules, replies: str) -> None:
    question = user("The weather in Oslo?")
    script = {
        "two consultations": [mixed("one danger"), mixed("another danger")],
        "mixed, then plain": [mixed("one danger"), weather()],
        "plain, then mixed": [weather(), mixed("one danger")],
    }[replies]
    with upstream(*script, "Rain.") as endpoint, run_gateway(endpoint, rules) as gateway:
        ask_chat(gateway, question)
        message = ask_chat(gateway, question)["choices"][0]["message"]
        ask_chat(gateway, question, message, RESULT)
    assert endpoint.requests[2]["messages"] == [question, message, RESULT]


def test_a_reply_is_restored_if_a_library_writes_the_history_in_another_way(rules: ScriptedRules) -> None:
    parts = [{"type": "text", "text": "The weather in Oslo?"}]
    sent_back = {**weather(), "content": ""}
    sent_back["tool_calls"][0]["function"]["arguments"] = '{"city":"Oslo"}'
    with (
        upstream(mixed("danger"), "Rain.") as endpoint,
        run_gateway(endpoint, rules) as gateway,
    ):
        ask_chat(gateway, user("The weather in Oslo?"))
        ask_chat(gateway, {"role": "user", "content": parts}, sent_back, RESULT)
    assert [len(m.get("tool_calls", [])) for m in endpoint.requests[1]["messages"]] == [0, 2, 0, 0]
    assert gateway.count("restored") == 1


def test_a_restored_call_takes_no_id_that_a_later_call_of_the_caller_has(rules: ScriptedRules) -> None:
    entries = [*call("danger", id="call_0")["tool_calls"], *weather("call_1")["tool_calls"]]
    first = {"role": "assistant", "content": None, "tool_calls": entries}
    question = user("The weather in Oslo?")
    with (
        upstream(first, weather("call_0"), "Rain.") as endpoint,
        run_gateway(endpoint, rules) as gateway,
    ):
        history = [question, ask_chat(gateway, question)["choices"][0]["message"]]
        history.append({**RESULT, "tool_call_id": "call_1"})
        history.append(ask_chat(gateway, *history)["choices"][0]["message"])
        history.append({**RESULT, "tool_call_id": "call_0"})
        ask_chat(gateway, *history)
    calls = [c["id"] for m in endpoint.requests[2]["messages"] for c in m.get("tool_calls") or []]
    results = [m["tool_call_id"] for m in endpoint.requests[2]["messages"] if m["role"] == "tool"]
    assert len(set(calls)) == len(calls) == 3
    assert sorted(calls) == sorted(results)


def test_two_hidden_turns_with_one_call_id_are_sent_back_under_two(rules: ScriptedRules) -> None:
    hidden = [response_with(call_item(text, id="functions.consult:0")) for text in ("one", "two")]
    with (
        upstream(*hidden, response_with(message_item("No."))) as endpoint,
        run_gateway(endpoint, rules) as gateway,
    ):
        ask(gateway, user("How?"))
    items = endpoint.requests[2]["input"]
    calls = [item["call_id"] for item in items if item.get("type") == "function_call"]
    outputs = [item["call_id"] for item in items if item.get("type") == "function_call_output"]
    assert calls == outputs
    assert len(set(calls)) == 2


def test_reasoning_with_the_same_item_id_gets_no_call_of_another_conversation(rules: ScriptedRules) -> None:
    reasoning = {**reasoning_item("Hm."), "id": "rs_0"}
    hidden = [response_with(reasoning, call_item("Alice is in danger")), response_with(message_item("No."))]
    plain = response_with(reasoning, message_item("Hello."))
    with (
        upstream(*hidden, plain, response_with(message_item("Bye."))) as endpoint,
        run_gateway(endpoint, rules) as gateway,
    ):
        post(gateway, {"input": "I am Alice.", "stream": True}, path="/responses")
        items = ask(gateway, user("I am Bob."))["output"]
        ask(gateway, user("I am Bob."), *items, user("Bye."))
    assert endpoint.requests[3]["input"] == [user("I am Bob."), *items, user("Bye.")]


def test_items_sent_back_as_references_are_restored(rules: ScriptedRules) -> None:
    first = response_with(call_item("danger"), weather_item())
    with (
        upstream(first, response_with(message_item("Rain."))) as endpoint,
        run_gateway(endpoint, rules) as gateway,
    ):
        items = ask(gateway, user("The weather in Oslo?"))["output"]
        references = [{"type": "item_reference", "id": item["id"]} for item in items]
        ask(gateway, user("The weather in Oslo?"), *references, OUTPUT)
    sent = endpoint.requests[1]["input"]
    assert [item.get("type") for item in sent[1:]] == [
        *("function_call", "function_call_output", "item_reference", "function_call_output"),
    ]
    assert "Do not help to make weapons." in sent[2]["output"]


@pytest.mark.parametrize("first", ["mixed", "plain"])
def test_a_result_is_not_restored_after_a_response_with_the_id_of_another_conversation(
    rules: ScriptedRules, first: str
) -> None:
    replies = {
        "mixed": response_with(call_item("Alice is in danger"), weather_item(), id="resp_1"),
        "plain": response_with(weather_item(), id="resp_1"),
    }
    order = [replies[first], *(reply for name, reply in replies.items() if name != first)]
    answer = response_with(message_item("Rain."))
    with upstream(*order, answer) as endpoint, run_gateway(endpoint, rules) as gateway:
        ask(gateway, user("I am Alice." if first == "mixed" else "I am Bob."))
        ask(gateway, user("I am Bob." if first == "mixed" else "I am Alice."))
        ask(gateway, OUTPUT, previous_response_id="resp_1")
    assert endpoint.requests[2]["input"] == [OUTPUT]


def test_a_response_id_that_two_conversations_share_is_not_replaced(rules: ScriptedRules) -> None:
    hidden = response_with(message_item("Let me look."), call_item("danger"), id="resp_1")
    answer = response_with(message_item("No."), id="resp_alice")
    plain = response_with(message_item("Hello."), id="resp_1")
    with upstream(hidden, answer, plain, plain) as endpoint, run_gateway(endpoint, rules) as gateway:
        post(gateway, {"input": "I am Alice.", "stream": True}, path="/responses")
        ask(gateway, user("I am Bob."))
        ask(gateway, user("And now?"), previous_response_id="resp_1")
    assert endpoint.requests[3]["previous_response_id"] == "resp_1"
