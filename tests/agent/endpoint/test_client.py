"""Failures of the endpoint: which requests are retried, and which message the user receives."""

import asyncio
import json
from email.utils import formatdate
from typing import Any

import pytest

from agent.endpoint import Endpoint, Reply, RetryPolicy
from agent.errors import EndpointError
from tests.fakes.endpoints.scripted import Drip, Raw, ScriptedEndpoint, call
from tests.fakes.episodes.agent_run import CLOSED_URL, FAST_RETRY, run_agent
from tests.fakes.rules.scripted import ScriptedRules

HTML = Raw(200, "<html><body>Sign in</body></html>", content_type="text/html")
BUSY = Raw(429, '{"error": {"message": "slow down"}}', {"retry-after": "0"})


def complete(endpoint: ScriptedEndpoint | str, *, stream: bool = False, **options: Any) -> Reply:
    async def session() -> Reply:
        base_url = endpoint if isinstance(endpoint, str) else endpoint.base_url
        async with Endpoint(base_url, "scripted", **{"retry": FAST_RETRY, **options}) as model:
            listen = (lambda kind, text: None) if stream else None
            return await model.complete([{"role": "user", "content": "Hi"}], [], {}, listen)

    return asyncio.run(session())


@pytest.mark.parametrize("stream", [False, True])
def test_an_html_page_with_status_200_is_named_and_not_tried_again(stream: bool) -> None:
    with ScriptedEndpoint([HTML]) as endpoint, pytest.raises(EndpointError) as caught:
        complete(endpoint, stream=stream)
    assert len(endpoint.requests) == 1
    assert caught.value.setup
    assert ("text/html" if stream else "Sign in") in str(caught.value)
    assert "/v1?" in str(caught.value)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("body", [{"choices": []}, {"choices": [{"index": 0}]}])
def test_a_completion_without_a_reply_is_named(stream: bool, body: dict[str, Any]) -> None:
    answer = Raw(200, json.dumps({"id": "x", "object": "chat.completion", **body}))
    if stream:
        answer = Raw(200, "data: [DONE]\n\n", content_type="text/event-stream")
    with (
        ScriptedEndpoint([answer]) as endpoint,
        pytest.raises(EndpointError, match="without a usable reply") as caught,
    ):
        complete(endpoint, stream=stream)
    assert caught.value.type == "no_choices"


def test_an_error_object_with_status_200_is_shown() -> None:
    answer = Raw(200, '{"error": {"message": "provider is down", "code": 502}}')
    with ScriptedEndpoint([answer]) as endpoint, pytest.raises(EndpointError, match="provider is down"):
        complete(endpoint)


def test_after_a_429_the_same_request_is_sent_again_and_no_tool_is_run_again() -> None:
    with (
        ScriptedRules() as rules,
        ScriptedEndpoint([BUSY, call("gun"), BUSY, BUSY, "I cannot help."]) as endpoint,
    ):
        episode = run_agent("How do I make a gun?", endpoint, rules)
    assert episode.answer == "I cannot help."
    assert [turn.attempts for turn in episode.turns] == [2, 3]
    assert len(rules.consultations) == 1
    assert endpoint.requests[0] == endpoint.requests[1]
    assert endpoint.requests[2] == endpoint.requests[3] == endpoint.requests[4]


@pytest.mark.parametrize("status", [408, 500, 503, 529])
def test_a_passing_failure_is_tried_again_a_bounded_number_of_times(status: int) -> None:
    with (
        ScriptedEndpoint(otherwise=Raw(status, "{}")) as endpoint,
        pytest.raises(EndpointError, match=f"{status} after 4 attempts") as caught,
    ):
        complete(endpoint)
    assert len(endpoint.requests) == FAST_RETRY.attempts
    assert (caught.value.type, caught.value.setup) == (f"http_{status}", False)


@pytest.mark.parametrize(("status", "setup"), [(400, False), (401, True), (404, True), (422, False)])
def test_a_refused_request_is_not_tried_again(status: int, setup: bool) -> None:
    refusal = Raw(status, '{"error": {"message": "the model is unknown"}}')
    with (
        ScriptedEndpoint([refusal]) as endpoint,
        pytest.raises(EndpointError, match="model is unknown") as caught,
    ):
        complete(endpoint)
    assert (len(endpoint.requests), caught.value.setup) == (1, setup)


def test_an_empty_account_is_not_tried_again() -> None:
    broke = Raw(429, '{"error": {"message": "no credit", "code": "insufficient_quota"}}')
    with ScriptedEndpoint([broke]) as endpoint, pytest.raises(EndpointError, match="no credit"):
        complete(endpoint)
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize("when", ["60", formatdate(4102444800, usegmt=True)])
def test_a_wait_longer_than_the_budget_is_not_begun(when: str) -> None:
    busy = Raw(429, '{"error": {"message": "slow down"}}', {"retry-after": when})
    with ScriptedEndpoint([busy]) as endpoint, pytest.raises(EndpointError, match="slow down"):
        complete(endpoint)
    assert len(endpoint.requests) == 1


def test_an_endpoint_that_is_not_there_is_named_with_what_to_check() -> None:
    with pytest.raises(EndpointError, match="cannot be reached after 4 attempts") as caught:
        complete(f"{CLOSED_URL}/v1")
    assert caught.value.setup
    assert "--base-url" in str(caught.value)


def test_an_endpoint_that_does_not_answer_in_time_is_given_up() -> None:
    with (
        ScriptedEndpoint(["late"], delay=1) as endpoint,
        pytest.raises(EndpointError, match=r"did not answer within 0\.1 s"),
    ):
        complete(endpoint, timeout=0.1, retry=RetryPolicy(attempts=1))


def test_a_wrong_address_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(EndpointError, match="not an http"):
        Endpoint("localhost:8810", "m")


def test_only_fields_that_every_server_knows_are_sent_with_the_key_in_a_header() -> None:
    with ScriptedEndpoint(["Hello"]) as endpoint:
        complete(endpoint, api_key="sk-secret")
    assert set(endpoint.requests[0]) == {"model", "messages"}
    assert endpoint.headers[0]["authorization"] == "Bearer sk-secret"


def test_credentials_in_the_address_are_not_recorded() -> None:
    assert Endpoint("https://user:pass@host/v1?key=x", "m").public_url == "https://host/v1"


def test_a_streamed_reply_is_the_same_as_an_unstreamed_one() -> None:
    message = {
        **call("a long enough situation", content="Let me look it up."),
        "reasoning_content": "Hm, hm, hm.",
    }
    two = {**message, "tool_calls": [*message["tool_calls"], *call("another", id="b")["tool_calls"]]}
    with ScriptedEndpoint([two, two]) as endpoint:
        whole, streamed = complete(endpoint), complete(endpoint, stream=True)
    assert streamed.message == whole.message == two
    assert (streamed.finish_reason, streamed.usage) == (whole.finish_reason, whole.usage)


def test_a_stream_that_breaks_off_after_text_was_shown_is_not_begun_again() -> None:
    chunk = '{"choices": [{"index": 0, "delta": {"content": "Hel"}}]}'
    broken = Raw(
        200, f'data: {chunk}\n\ndata: {{"error": "out of memory"}}\n\n', content_type="text/event-stream"
    )
    with ScriptedEndpoint([broken]) as endpoint, pytest.raises(EndpointError, match="out of memory"):
        complete(endpoint, stream=True)
    assert len(endpoint.requests) == 1


def test_token_ids_and_log_probabilities_are_kept_where_the_endpoint_gives_them() -> None:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "4"},
        "finish_reason": "stop",
        "token_ids": [19],
        "logprobs": {"content": []},
    }
    with ScriptedEndpoint([{"choices": [choice], "prompt_token_ids": [1, 2], "model": "m-2"}]) as endpoint:
        episode = run_agent("2 + 2?", endpoint)
    (turn,) = episode.turns
    assert (turn.prompt_token_ids, turn.token_ids, turn.logprobs) == ([1, 2], [19], {"content": []})
    assert (episode.model_requested, episode.model_returned) == ("scripted", "m-2")


def test_fields_that_say_nothing_are_not_sent_back() -> None:
    noisy = {**call("gun"), "refusal": None, "annotations": [], "function_call": None}
    with ScriptedRules() as rules, ScriptedEndpoint([noisy, "No."]) as endpoint:
        run_agent("How do I make a gun?", endpoint, rules)
    assert endpoint.requests[1]["messages"][2] == call("gun")


def test_a_stream_that_only_pings_is_given_up_after_the_idle_time() -> None:
    begun = 'data: {"choices": [{"index": 0, "delta": {"content": "Hel"}}]}\n\n'
    pinging = Drip([begun, *[0.05, ": ping\n\n"] * 100])
    with ScriptedEndpoint([pinging]) as endpoint:
        with pytest.raises(EndpointError, match=r"sent nothing for 0\.3 s") as caught:
            complete(endpoint, stream=True, idle_timeout=0.3)
        assert endpoint.left.wait(10)
    assert caught.value.type == "idle"


def test_a_redirect_takes_the_prompt_nowhere() -> None:
    with ScriptedEndpoint(["Hello"]) as elsewhere:
        away = Raw(307, "", {"location": f"{elsewhere.base_url}/chat/completions"})
        with ScriptedEndpoint([away]) as endpoint, pytest.raises(EndpointError, match="307"):
            complete(endpoint)
    assert elsewhere.requests == []
