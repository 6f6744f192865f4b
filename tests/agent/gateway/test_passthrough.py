"""Routes below /v1 that the gateway has no part in."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.fakes.endpoints.responses import call_item, message_item, response_with
from tests.fakes.processes.gateway import post, run_gateway, upstream
from tests.fakes.processes.live_server import LiveServer
from tests.fakes.rules.scripted import ScriptedRules


class EchoServer:
    """Answers every request with its method, path, query, headers and body, in two pieces."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.release.set()
        self._server = LiveServer(self)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        request = {
            "method": scope["method"],
            "path": scope["raw_path"].decode(),
            "query": scope["query_string"].decode(),
            "headers": {k.decode(): v.decode("latin-1") for k, v in scope["headers"]},
            "body": body.decode("latin-1"),
        }
        headers = [(b"content-type", b"application/x-odd"), (b"x-one", b"1"), (b"x-one", b"2")]
        await send({"type": "http.response.start", "status": 207, "headers": headers})
        await send({"type": "http.response.body", "body": b" ", "more_body": True})
        await asyncio.to_thread(self.release.wait, 20)
        await send({"type": "http.response.body", "body": json.dumps(request).encode()})

    def __enter__(self) -> EchoServer:
        self._server.__enter__()
        self.base_url = f"{self._server.origin}/v1"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()


@pytest.fixture
def echo() -> Iterator[EchoServer]:
    with EchoServer() as server:
        yield server


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_another_route_is_forwarded_unchanged(rules: ScriptedRules, echo: EchoServer, method: str) -> None:
    headers = {"authorization": "Bearer sk-1", "content-type": "multipart/form-data; boundary=x"}
    with run_gateway(echo.base_url, rules) as gateway:
        body = b"--x\xff" if method != "GET" else None
        url = f"{gateway.base_url}/files/a%2Fb:c"
        reply = httpx2.request(method, url, params={"q": "1"}, content=body, headers=headers)
        metrics = httpx2.get(f"{gateway.origin}/metrics").text
    request = reply.json()
    assert (reply.status_code, reply.headers["content-type"]) == (207, "application/x-odd")
    assert reply.headers.get_list("x-one") == ["1", "2"]
    assert (request["method"], request["path"], request["query"]) == (method, "/v1/files/a%2Fb:c", "q=1")
    assert request["headers"]["authorization"] == "Bearer sk-1"
    assert request["body"] == ("--x\xff" if body else "")
    assert reply.headers["x-ascl-consulted"] == "not-offered"
    assert 'ascl_gateway_passed_through_total{route="files"} 1.0\n' in metrics


def test_a_reply_of_another_route_is_streamed(rules: ScriptedRules, echo: EchoServer) -> None:
    echo.release.clear()
    with run_gateway(echo.base_url, rules) as gateway:  # noqa: SIM117
        with httpx2.stream("POST", f"{gateway.base_url}/embeddings", json={}, timeout=15) as reply:
            pieces = reply.iter_bytes()
            assert next(pieces) == b" "
            echo.release.set()
            assert b"/v1/embeddings" in b"".join(pieces)


def test_route_names_in_metrics_are_bounded(rules: ScriptedRules, echo: EchoServer) -> None:
    with run_gateway(echo.base_url, rules) as gateway:
        for name in ("one", "two"):
            httpx2.get(f"{gateway.base_url}/{name}")
        metrics = httpx2.get(f"{gateway.origin}/metrics").text
    assert 'passed_through_total{route="other"} 2.0\n' in metrics


@pytest.mark.parametrize("choice", ["refuse", "fail"])
def test_a_strict_gateway_refuses_other_routes_except_models(
    rules: ScriptedRules, echo: EchoServer, choice: str
) -> None:
    with run_gateway(echo.base_url, rules, on_rules_error=choice) as gateway:
        refused = httpx2.post(f"{gateway.base_url}/completions", json={"prompt": "gun"})
        models = httpx2.get(f"{gateway.base_url}/models")
    assert (refused.status_code, refused.json()["error"]["type"]) == (400, "rules_not_offered")
    assert models.status_code == 207


@pytest.mark.parametrize(
    "headers",
    [{"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}],
    ids=lambda h: next(iter(h)),
)
def test_a_web_page_cannot_use_other_routes(
    rules: ScriptedRules, echo: EchoServer, headers: dict[str, str]
) -> None:
    with run_gateway(echo.base_url, rules) as gateway:
        sent = {"content-type": "text/plain", **headers}
        reply = httpx2.post(f"{gateway.base_url}/embeddings", content=b"{}", headers=sent)
    assert (reply.status_code, reply.json()["error"]["type"]) == (403, "foreign_page")


def test_a_body_over_the_limit_is_refused(rules: ScriptedRules, echo: EchoServer) -> None:
    with run_gateway(echo.base_url, rules, body_limit=100) as gateway:
        assert httpx2.post(f"{gateway.base_url}/files", content=b"x" * 200).status_code == 413


def test_a_response_is_retrieved_under_the_id_that_the_caller_saw(rules: ScriptedRules) -> None:
    hidden = response_with(message_item("Let me look."), call_item("gun"), id="resp_shown")
    answer = response_with(message_item("No."), id="resp_real")
    with upstream(hidden, answer) as endpoint, run_gateway(endpoint, rules) as gateway:
        post(gateway, {"input": "How?", "stream": True}, path="/responses")
        sent = {"authorization": "Bearer sk-caller"}
        httpx2.get(f"{gateway.base_url}/responses/resp_shown/input_items", headers=sent)
    assert endpoint.other_paths == ["/v1/responses/resp_real/input_items"]
