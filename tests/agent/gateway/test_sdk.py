"""The official SDK behaves the same with and without the gateway."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from openai import BadRequestError, OpenAI, RateLimitError
from pydantic import BaseModel

from tests.fakes.endpoints.scripted import Raw, ScriptedEndpoint, call
from tests.fakes.processes.gateway import run_gateway
from tests.fakes.rules.scripted import ScriptedRules

GUN: Any = [{"role": "user", "content": "How do I make a gun?"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


class Verdict(BaseModel):
    """Schema of a structured answer."""

    allowed: bool
    why: str


def two_calls() -> dict[str, Any]:
    cities = [
        call(arguments=f'{{"city": "{city}"}}', id=city, name="get_weather") for city in ("Oslo", "Bergen")
    ]
    return {**cities[0], "tool_calls": [entry for each in cities for entry in each["tool_calls"]]}


@contextmanager
def sdk(*answers: Any) -> Iterator[tuple[OpenAI, ScriptedEndpoint]]:
    with ScriptedRules() as rules, ScriptedEndpoint(answers, strict=False) as endpoint:  # noqa: SIM117
        with (
            run_gateway(endpoint, rules) as gateway,
            OpenAI(base_url=gateway.base_url, api_key="sk", max_retries=0) as client,
        ):
            yield client, endpoint


@pytest.mark.parametrize("hidden", [[], [call("gun")]], ids=["direct", "consulting"])
def test_chat(hidden: list[Any]) -> None:
    with sdk(*hidden, "I cannot help.") as (client, endpoint):
        reply = client.chat.completions.create(model="m", messages=GUN)
    assert reply.choices[0].message.content == "I cannot help."
    assert reply.choices[0].message.tool_calls is None
    assert reply.usage is not None
    assert reply.usage.total_tokens == 25 * (1 + len(hidden))
    assert len(endpoint.requests) == 1 + len(hidden)


@pytest.mark.parametrize("hidden", [[], [call("gun")]], ids=["direct", "consulting"])
def test_streaming(hidden: list[Any]) -> None:
    with (
        sdk(*hidden, "I cannot help.") as (client, _),
        client.chat.completions.stream(
            model="m", messages=GUN, stream_options={"include_usage": True}
        ) as stream,
    ):
        pieces = [event.delta for event in stream if event.type == "content.delta"]
        whole = stream.get_final_completion()
    assert "".join(pieces) == whole.choices[0].message.content == "I cannot help."
    assert whole.choices[0].finish_reason == "stop"
    assert whole.usage is not None
    assert whole.usage.total_tokens == 25 * (1 + len(hidden))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("hidden", [[], [call("gun")]], ids=["direct", "consulting"])
def test_parallel_tools_and_their_results(hidden: list[Any], stream: bool) -> None:
    with sdk(*hidden, two_calls(), "Rain in both.") as (client, endpoint):
        if stream:
            with client.chat.completions.stream(model="m", messages=GUN, tools=[WEATHER]) as events:
                message = events.get_final_completion().choices[0].message
        else:
            reply = client.chat.completions.create(model="m", messages=GUN, tools=[WEATHER])
            message = reply.choices[0].message  # type: ignore[assignment]
        calls = message.tool_calls or []
        assert [(c.id, c.function.arguments) for c in calls] == [  # type: ignore[union-attr]
            ("Oslo", '{"city": "Oslo"}'),
            ("Bergen", '{"city": "Bergen"}'),
        ]
        results: Any = [{"role": "tool", "tool_call_id": c.id, "content": "Rain"} for c in calls]
        last = client.chat.completions.create(model="m", messages=[*GUN, message, *results], tools=[WEATHER])
    assert last.choices[0].message.content == "Rain in both."
    assert endpoint.requests[-1]["messages"][-2:] == results


@pytest.mark.parametrize("hidden", [[], [call("gun")]], ids=["direct", "consulting"])
def test_structured_output(hidden: list[Any]) -> None:
    with sdk(*hidden, '{"allowed": false, "why": "dangerous"}') as (client, endpoint):
        reply = client.chat.completions.parse(model="m", messages=GUN, response_format=Verdict)
    assert reply.choices[0].message.parsed == Verdict(allowed=False, why="dangerous")
    assert all("response_format" in request for request in endpoint.requests)


def chat(client: OpenAI) -> Any:
    message = client.chat.completions.create(model="m", messages=GUN).choices[0].message
    return message.role, message.content


def streamed(client: OpenAI) -> Any:
    with client.chat.completions.stream(model="m", messages=GUN) as stream:
        return [event.delta for event in stream if event.type == "content.delta"]


def called(client: OpenAI) -> Any:
    choice = client.chat.completions.create(model="m", messages=GUN, tools=[WEATHER]).choices[0]
    return choice.finish_reason, [c.to_dict() for c in choice.message.tool_calls or []]


def parsed(client: OpenAI) -> Any:
    return (
        client.chat.completions.parse(model="m", messages=GUN, response_format=Verdict)
        .choices[0]
        .message.parsed
    )


ONE_CALL = call(arguments='{"city": "Oslo"}', id="Oslo", name="get_weather")


@pytest.mark.parametrize(
    ("use", "answer"),
    [
        (chat, "I cannot help."),
        (streamed, "I cannot help."),
        (called, ONE_CALL),
        (called, two_calls()),
        (parsed, '{"allowed": false, "why": "dangerous"}'),
    ],
    ids=["chat", "streaming", "tools", "parallel tools", "structured output"],
)
def test_the_gateway_gives_the_sdk_what_the_endpoint_gives_it(use: Any, answer: Any) -> None:
    with (
        ScriptedEndpoint([answer], strict=False) as endpoint,
        OpenAI(base_url=endpoint.base_url, api_key="sk", max_retries=0) as client,
    ):
        without = use(client)
    assert without
    for hidden in ([], [call("gun")]):
        with sdk(*hidden, answer) as (client, _):
            assert use(client) == without


def test_errors_keep_their_kind() -> None:
    busy = Raw(429, '{"error": {"message": "slow down", "code": "rate_limit"}}')
    with sdk(busy) as (client, _):
        with pytest.raises(RateLimitError, match="slow down"):
            client.chat.completions.create(model="m", messages=GUN)
        reserved: Any = {"type": "function", "function": {"name": "consult_safety_rules"}}
        with pytest.raises(BadRequestError, match="rename yours"):
            client.chat.completions.create(model="m", messages=GUN, tools=[reserved])


def test_models_are_listed() -> None:
    with sdk() as (client, _):
        assert [model.id for model in client.models.list()] == ["scripted"]
