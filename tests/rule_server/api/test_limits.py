"""Floods, slow and malformed requests are refused with the right status, and the service stays up."""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from agent.tools import RulesClient
from rule_server.api.app import server_config
from rule_server.api.auth import new_token
from rule_server.settings import Settings
from tests.fakes.processes.live_server import LiveServer
from tests.fakes.rules.rulebooks import rule
from tests.fakes.rules.toy_service import QUESTION, ToyEncoder, ToyServer, serve_toy, toy_service


def connect(served: ToyServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", served.port), timeout=20)


def head(path: str, length: int) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


def read_to_end(connection: socket.socket) -> bytes:
    received = b""
    while piece := connection.recv(65536):
        received += piece
    return received


@pytest.mark.parametrize("path", ["/v1/consult", "/mcp"])
def test_a_slow_body_is_refused_and_its_connection_closed(tmp_path: Path, path: str) -> None:
    with serve_toy(tmp_path, body_timeout=0.3) as served, connect(served) as connection:
        connection.sendall(head(path, 100) + b"{")
        assert read_to_end(connection).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("sent", [b"", b"GET /v1/rules HTTP/1.1\r\nHost: loc", head("/nothing", 100) + b"{"])
def test_an_incomplete_request_does_not_hold_its_connection(tmp_path: Path, sent: bytes) -> None:
    with serve_toy(tmp_path, body_timeout=0.2) as served, connect(served) as connection:
        connection.sendall(sent)
        read_to_end(connection)  # a socket timeout would raise


def test_empty_lines_do_not_keep_a_connection_open(tmp_path: Path) -> None:
    with serve_toy(tmp_path, body_timeout=0.2) as served, connect(served) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"\r\n")
        read_to_end(connection)  # a socket timeout would raise


def test_a_refused_caller_cannot_hold_its_connection_with_a_slow_body(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.jsonl"
    new_token(tokens, "x", ["read"], "now")
    with serve_toy(tmp_path, body_timeout=0.2, tokens_file=tokens) as served, connect(served) as held:
        held.sendall(head("/v1/consult", 100) + b"{")
        assert read_to_end(held).startswith(b"HTTP/1.1 401 ")


def test_an_oversized_body_is_refused_whether_declared_or_streamed(tmp_path: Path) -> None:
    with serve_toy(tmp_path, max_body=2048) as served:
        for path in ("/v1/consult", "/mcp", "/nothing"):
            assert served.client.post(path, content=b"x" * 2049).status_code == 413
            pieces = (b"x" * 1000 for _ in range(5))
            assert served.client.post(path, content=pieces).status_code == 413
        with connect(served) as connection:
            connection.sendall(
                b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n"
            )
            assert read_to_end(connection).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("content", [b"[" * 200_000, b'{"a":' * 100_000, b'"' + b"x" * 1_000_000 + b'"'])
def test_deeply_nested_or_huge_json_is_a_bad_request_for_mcp_too(tmp_path: Path, content: bytes) -> None:
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    with serve_toy(tmp_path) as served:
        for revision in ("2025-06-18", "2026-07-28"):
            answer = served.client.post(
                "/mcp", content=content, headers=headers | {"mcp-protocol-version": revision}
            )
            assert answer.status_code == 400
        assert served.client.get("/v1/rulebook").status_code == 200


def test_each_caller_has_its_own_rate_limit(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.jsonl"
    one, two = (new_token(tokens, name, ["read"], "now") for name in ("one", "two"))
    with serve_toy(tmp_path, tokens_file=tokens, rate_limit=0.01, rate_burst=3) as served:

        def status(token: str) -> int:
            headers = {"Authorization": f"Bearer {token}"}
            return served.client.get("/v1/rulebook", headers=headers).status_code

        assert [status(one) for _ in range(5)] == [200, 200, 200, 429, 429]
        assert status(two) == 200
        headers = {"Authorization": f"Bearer {one}"}
        refused = served.client.get("/metrics", headers=headers)
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["retry-after"]) <= 100
        assert served.client.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        ("2001:db8:0:7::1", "2001:DB8:0:7:ffff::0002", True),
        ("2001:db8:0:7::1", "2001:db8:0:8::1", False),
        ("::ffff:203.0.113.9", "203.0.113.9", True),
        ("::ffff:203.0.113.9", "::FFFF:cb00:710a", False),
        ("64:ff9b::203.0.113.9", "203.0.113.9", True),
        ("64:ff9b::203.0.113.9", "64:ff9b::203.0.113.10", False),
        ("2002:cb00:7109:1::1", "2002:cb00:7109:2::1", True),
        ("[2001:db8::1]:4000", "2001:db8::2", True),
        ("203.0.113.9:4000", "203.0.113.9:4001", True),
        ("_made-up-1", "_made-up-2", True),
    ],
)
def test_addresses_of_one_network_share_a_rate_limit(tmp_path: Path, one: str, two: str, same: bool) -> None:
    settings = {"trusted_proxies": "127.0.0.1", "allow_anonymous": True, "rate_burst": 1, "rate_limit": 0.01}
    with serve_toy(tmp_path, **settings) as served:
        statuses = [
            served.client.get("/v1/rulebook", headers={"X-Forwarded-For": address}).status_code
            for address in (one, two)
        ]
    assert statuses == [200, 429 if same else 200]


def test_a_burst_of_300_fits_the_default_limits_and_leaves_room_for_other_callers(tmp_path: Path) -> None:
    assert 300 < Settings(artefact=tmp_path).rate_burst < Settings(artefact=tmp_path).concurrency
    tokens = tmp_path / "tokens.jsonl"
    headers = {"Authorization": f"Bearer {new_token(tokens, 'gateway', ['consult'], 'now')}"}
    with serve_toy(tmp_path, tokens_file=tokens) as served:
        answers = [served.client.post("/v1/consult", json=QUESTION, headers=headers) for _ in range(300)]
    assert {answer.status_code for answer in answers} == {200}


def test_an_mcp_client_waits_for_a_service_that_starts(tmp_path: Path) -> None:
    encoder = ToyEncoder()

    async def consult() -> str:
        async with RulesClient(f"{served.origin}/mcp") as client:
            await client.tool()
            threading.Timer(0.5, encoder.open.set).start()
            return (await client.consult(QUESTION)).text

    config = server_config(toy_service(tmp_path, encoder))
    encoder.open.clear()
    with LiveServer(None, config=config) as served:
        refused = httpx2.get(f"{served.origin}/readyz")
        assert refused.status_code == 503
        assert "[cyber.malware]" in asyncio.run(consult())


def test_callers_on_loopback_without_tokens_have_no_rate_limit(tmp_path: Path) -> None:
    with serve_toy(tmp_path, rate_limit=0.01, rate_burst=1) as served:
        statuses = {served.client.get("/v1/rulebook").status_code for _ in range(5)}
    assert statuses == {200}


def test_requests_over_the_concurrency_limit_get_a_503(tmp_path: Path) -> None:
    encoder = ToyEncoder()
    with serve_toy(tmp_path, encoder, concurrency=2) as served:
        encoder.open.clear()
        with ThreadPoolExecutor(2) as pool:
            waiting = [
                pool.submit(served.client.post, "/v1/consult", json=QUESTION | {"top_k": k}) for k in (1, 2)
            ]
            deadline = time.monotonic() + 20
            while (refused := served.client.get("/v1/rules")).status_code != 503:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert refused.headers["retry-after"] == "1"
            assert served.client.get("/healthz").status_code == 200
            encoder.open.set()
            assert [answer.result().status_code for answer in waiting] == [200, 200]


def test_a_request_that_takes_too_long_gets_a_503(tmp_path: Path) -> None:
    encoder = ToyEncoder()
    with serve_toy(tmp_path, encoder, request_timeout=0.3) as served:
        encoder.open.clear()
        answer = served.client.post("/v1/consult", json=QUESTION)
        encoder.open.set()
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert served.client.post("/v1/consult", json=QUESTION).status_code == 200


def test_headers_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    with serve_toy(tmp_path) as served:
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)
        connection.putrequest("GET", "/v1/rules", skip_host=True)
        connection.putheader("Host", "evil.example")
        connection.putheader("Host", "localhost")
        connection.endheaders()
        assert connection.getresponse().status == 400
        connection.close()


def test_a_page_behind_a_trusted_proxy_may_use_its_public_origin(tmp_path: Path) -> None:
    headers = {
        "Host": "rules.example.org",
        "Origin": "https://rules.example.org",
        "X-Forwarded-Proto": "https",
    }
    for trusted, expected in (("127.0.0.1", 200), ("", 403)):
        settings = {"allowed_hosts": "rules.example.org", "trusted_proxies": trusted}
        with serve_toy(tmp_path / f"trusted{trusted}", **settings) as served:
            assert served.client.get("/v1/rules", headers=headers).status_code == expected


def test_only_pages_of_an_allowed_origin_may_call_the_service_and_read_the_response(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.jsonl"
    token = new_token(tokens, "page", ["consult"], "now")
    settings = {"allowed_origins": "https://app.example.org/", "tokens_file": tokens}
    with serve_toy(tmp_path, **settings) as served:
        for origin, allowed in (("https://app.example.org", True), ("https://evil.example.org", False)):
            preflight = {"Access-Control-Request-Method": "POST"}
            preflight["Access-Control-Request-Headers"] = "authorization, mcp-protocol-version"
            before = served.client.options("/mcp", headers={"Origin": origin, **preflight})
            assert (before.status_code == 200) == allowed
            assert before.headers.get("access-control-allow-origin") == (origin if allowed else None)
            headers = {"Origin": origin, "Authorization": f"Bearer {token}"}
            answer = served.client.post("/v1/consult", json=QUESTION, headers=headers)
            assert answer.status_code == (200 if allowed else 403)
            assert answer.headers.get("access-control-allow-origin") == (origin if allowed else None)
            refused = served.client.post("/v1/consult", json=QUESTION, headers={"Origin": origin})
            assert refused.status_code == (401 if allowed else 403)
            assert refused.headers.get("access-control-allow-origin") == (origin if allowed else None)


def test_a_reload_that_outlasts_its_request_still_takes_effect(tmp_path: Path) -> None:
    encoder = ToyEncoder()
    with serve_toy(tmp_path, encoder, request_timeout=0.3) as served:
        before = served.client.get("/v1/rulebook").json()["digest"]
        path, text = rule("cyber.malware", title="Something else to embed")
        (tmp_path / "rules" / path).write_text(text, encoding="utf-8")
        encoder.open.clear()
        assert served.client.post("/v1/admin/reload").status_code == 503
        assert served.client.get("/v1/rulebook").json()["digest"] == before
        encoder.open.set()
        deadline = time.monotonic() + 20
        while served.client.get("/v1/rulebook").json()["digest"] == before:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert served.client.get("/v1/changes").json()["reworded"] == ["cyber.malware"]
