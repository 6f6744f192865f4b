"""Differences between endpoints: the quirks table, the probe and the concurrency limit."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner

from agent.cli import app
from agent.endpoint import (
    PROBE_STEPS,
    PROFILES,
    Endpoint,
    Quirks,
    Reply,
    probe_endpoint,
    quirk_columns,
    quirks_named,
    reasoning_text,
)
from agent.endpoint.concurrency import ConcurrencyLimiter
from agent.endpoint.probe import ProbeResult
from agent.endpoint.quirks import UNKNOWN_ENDPOINT, quirks_for_url
from tests.fakes.endpoints.scripted import Raw, ScriptedEndpoint, call
from tests.fakes.episodes.agent_run import CLOSED_URL, run_agent
from tests.fakes.rules.scripted import ScriptedRules

THINKING = [row for row in PROFILES if row.reasoning != "none"]


def sent(row: Quirks | None, sampling: dict[str, Any]) -> dict[str, Any]:
    """Returns the body of a request to an endpoint with these quirks."""

    async def session(base_url: str) -> Reply:
        async with Endpoint(base_url, "m", quirks=row) as model:
            return await model.complete([{"role": "user", "content": "Hi"}], [], sampling)

    with ScriptedEndpoint(["Hello"], strict=False) as endpoint:
        asyncio.run(session(endpoint.base_url))
    return endpoint.requests[0]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("row", THINKING, ids=lambda row: row.name)
def test_a_thought_goes_back_under_the_field_it_came_in_byte_for_byte(row: Quirks, stream: bool) -> None:
    message = {**call("gun"), row.reasoning: "Is this délicate? <b>\n"}
    with ScriptedRules() as rules, ScriptedEndpoint([message, "No."]) as endpoint:
        episode = run_agent("How do I make a gun?", endpoint, rules, stream=stream)
    assert episode.answer == "No."
    assert reasoning_text(message) == "Is this délicate? <b>\n"
    thought = json.dumps({row.reasoning: message[row.reasoning]}, ensure_ascii=False, separators=(",", ":"))
    assert thought[1:-1].encode() in endpoint.bodies[1]
    fields = set(endpoint.requests[1]["messages"][2])
    assert fields == {"role", "content", "tool_calls", row.reasoning}


def test_two_thought_fields_both_go_back() -> None:
    details = [{"type": "reasoning.text", "text": "Hm.", "signature": "s=="}]
    message = {**call("gun"), "reasoning": "Hm.", "reasoning_details": details}
    with ScriptedRules() as rules, ScriptedEndpoint([message, "No."]) as endpoint:
        run_agent("How do I make a gun?", endpoint, rules)
    assert endpoint.requests[1]["messages"][2] == message


def test_optional_data_is_requested_only_from_endpoints_that_return_it() -> None:
    plain = {"model", "messages", "max_tokens"}
    assert set(sent(None, {"max_tokens": 5})) == plain
    assert sent(quirks_named("openai"), {"max_tokens": 5})["max_completion_tokens"] == 5
    vllm = sent(quirks_named("vLLM"), {"max_tokens": 5})
    assert set(vllm) - plain == {"logprobs", "return_token_ids"}
    assert set(sent(quirks_named("transformers serve"), {"max_tokens": 5})) == plain


def test_providers_are_identified_by_their_host_name_only() -> None:
    assert quirks_for_url("https://api.deepseek.com/v1").name == "DeepSeek"
    assert quirks_for_url("https://api.moonshot.ai/v1").name == "Kimi"
    assert quirks_for_url("http://127.0.0.1:8000/v1") is UNKNOWN_ENDPOINT
    assert quirks_for_url("https://api.openai.com.evil.example/v1") is UNKNOWN_ENDPOINT


def test_the_table_names_the_providers_that_the_docs_name() -> None:
    result = CliRunner().invoke(app, ["quirks", "--json"])
    rows = json.loads(result.stdout)
    assert [row["name"] for row in rows] == [row.name for row in PROFILES]
    assert list(rows[0]) == quirk_columns()


def probe_scripted(answer: Callable[[dict[str, Any]], Any], **more: Any) -> tuple[ProbeResult, list[str]]:
    steps: list[str] = []
    with ScriptedEndpoint(otherwise=answer, strict=False) as endpoint:
        return asyncio.run(probe_endpoint(endpoint.base_url, on_step=steps.append, **more)), steps


def test_a_probe_returns_a_row_of_the_table() -> None:
    def server(body: dict[str, Any]) -> Any:
        if "max_tokens" in body:
            return Raw(400, '{"error": {"message": "use max_completion_tokens"}}')
        if body.get("ascl_probe") or body.get("tool_choice") == "required":
            return Raw(422, "{}")
        for message in body["messages"]:
            for entry in message.get("tool_calls", []):
                if not entry["function"]["arguments"].endswith("}"):
                    return Raw(500, "Internal Server Error")
        message = {"role": "assistant", "content": "Hello.", "reasoning": "Hm."}
        if body.get("tools"):
            message = call(arguments='{"city": "Oslo"}', name="get_time")
        choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": "stop"}
        if body.get("logprobs"):
            choice["logprobs"] = {"content": [{"token": "Hello"}]}
        if body.get("return_token_ids"):
            choice["token_ids"] = [1]
        return {"choices": [choice], "usage": {"total_tokens": 3}}

    probe_result, steps = probe_scripted(server)
    assert len(steps) == PROBE_STEPS
    assert probe_result.model == "scripted"
    assert probe_result.row == Quirks(
        name="unknown",
        reasoning="reasoning",
        token_limit="max_completion_tokens",
        tools="yes",
        tool_choice="no",
        malformed="no",
        seed="yes",
        logprobs="yes",
        token_ids="yes",
        stream_usage="yes",
        responses="no",
        extra_fields="no",
    )


def test_a_probe_tells_text_calls_from_real_ones() -> None:
    text = '<tool_call>{"name": "get_time", "arguments": {"city": "Oslo"}}</tool_call>'
    probe_result, _ = probe_scripted(lambda body: text if body.get("tools") else "Hello.")
    assert (probe_result.row.tools, probe_result.row.reasoning, probe_result.row.logprobs) == (
        "text",
        "none",
        "no",
    )


def test_the_probe_command_prints_a_row_or_one_sentence() -> None:
    with ScriptedEndpoint(otherwise="Hello.", strict=False) as endpoint:
        result = CliRunner().invoke(app, ["probe", endpoint.base_url, "--json"])
        table = CliRunner().invoke(app, ["probe", endpoint.base_url])
    assert json.loads(result.stdout)["seed"] == "yes"
    assert table.stdout.splitlines()[0].split() == quirk_columns()
    for url, sentence in (
        (f"{CLOSED_URL}/v1", "check that it is running"),
        (endpoint.base_url, "did not answer"),
    ):
        failed = CliRunner().invoke(app, ["probe", url])
        assert failed.exit_code == 1
        assert sentence in failed.output


def test_an_endpoint_that_is_not_an_api_is_reported() -> None:
    with ScriptedEndpoint(otherwise=Raw(200, "<html>", content_type="text/html")) as endpoint:
        result = CliRunner().invoke(app, ["probe", endpoint.base_url])
    assert (result.exit_code, result.output.count("\n")) == (1, 1)
    assert "does not answer a plain question" in result.output


def test_the_limit_starts_with_the_first_refusal_and_is_lowered_at_most_once_a_second() -> None:
    now = 0.0
    limiter = ConcurrencyLimiter(lambda: now)

    async def crowd(size: int, refuse: bool) -> int:
        most, under_way = 0, 0

        async def one() -> None:
            nonlocal most, under_way
            async with limiter:
                sent_at = limiter.clock()
                under_way += 1
                most = max(most, under_way)
                await asyncio.sleep(0.01)
                under_way -= 1
                limiter.refused(sent_at) if refuse else limiter.granted()

        await asyncio.gather(*(one() for _ in range(size)))
        return most

    assert asyncio.run(crowd(40, refuse=False)) == 40
    assert limiter.limit is None
    asyncio.run(crowd(40, refuse=True))
    assert limiter.limit == pytest.approx(38)
    asyncio.run(crowd(40, refuse=True))
    assert limiter.limit == pytest.approx(38)
    now = 1.5
    assert asyncio.run(crowd(60, refuse=True)) == 38
    assert limiter.limit == pytest.approx(19)
    now = 3.0
    assert asyncio.run(crowd(200, refuse=False)) <= limiter.limit < 38
    assert limiter.limit > 20


def test_a_refusal_of_a_request_sent_before_the_last_decrease_is_ignored() -> None:
    now = 5.0
    limiter = ConcurrencyLimiter(lambda: now)
    limiter.limit = 10
    limiter.refused(4.0)
    now = 8.0
    limiter.refused(4.5)
    assert limiter.limit == pytest.approx(5)
    limiter.refused(6.0)
    assert limiter.limit == pytest.approx(2.5)


def test_a_cancelled_task_releases_its_slot() -> None:
    async def leave() -> None:
        limiter = ConcurrencyLimiter()
        async with limiter:
            limiter.refused(limiter.clock())
            assert limiter.limit == 1
            waiting = asyncio.create_task(_pass(limiter))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        async with asyncio.timeout(1):
            await _pass(limiter)

    asyncio.run(leave())


def test_all_waiting_tasks_may_be_cancelled_together() -> None:
    async def leave() -> list[BaseException | None]:
        limiter = ConcurrencyLimiter()
        async with limiter:
            limiter.refused(limiter.clock())
            waiting = [asyncio.create_task(_pass(limiter)) for _ in range(3)]
            owner = asyncio.create_task(_pass(limiter))
            await asyncio.sleep(0)
            for task in reversed(
                [*waiting, owner]
            ):  # so that a slot is handed to a task that is already cancelled
                task.cancel()
        return await asyncio.gather(*waiting, owner, return_exceptions=True)

    assert [type(left) for left in asyncio.run(leave())] == [asyncio.CancelledError] * 4


async def _pass(limiter: ConcurrencyLimiter) -> None:
    async with limiter:
        pass


def test_every_refused_request_is_eventually_answered() -> None:
    def admit_eight(body: dict[str, Any]) -> Any:
        return "Hello." if endpoint._in_flight <= 8 else Raw(429, "{}")

    async def crowd(base_url: str) -> list[Reply]:
        async with Endpoint(base_url, "m") as model:
            ask_one = [model.complete([{"role": "user", "content": "Hi"}], [], {}) for _ in range(60)]
            return await asyncio.gather(*ask_one)

    with ScriptedEndpoint(otherwise=admit_eight, delay=0.05) as endpoint:
        replies = asyncio.run(crowd(endpoint.base_url))
    assert len(replies) == 60
    assert len(endpoint.requests) < 60 * 4
