"""Runs a gateway on a free port, between a scripted endpoint and a scripted rule service.

with running(endpoint, rules, on_rules_error="fail") as gateway:
    post(gateway, {"messages": [...]})
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2

from agent.gateway import Settings
from agent.gateway.app import Gateway
from agent.tools import RulesClient
from tests.fakes.endpoints.scripted import ScriptedEndpoint
from tests.fakes.processes.live_server import LiveServer
from tests.fakes.rules.scripted import ScriptedRules


def upstream(*answers: Any, **options: Any) -> ScriptedEndpoint:
    """A scripted endpoint that accepts any request."""
    return ScriptedEndpoint(answers, strict=False, **options)


class RunningGateway:
    """A running gateway: its addresses and its metrics."""

    def __init__(self, gateway: Gateway, served: LiveServer) -> None:
        self.gateway = gateway
        self.base_url = f"{served.origin}/v1"
        self.origin = served.origin

    def count(self, name: str) -> int:
        """Returns the counter `ascl_gateway_<name>_total`."""
        return int(self.gateway.metrics.registry.get_sample_value(f"ascl_gateway_{name}_total") or 0)


@contextmanager
def run_gateway(
    upstream: ScriptedEndpoint | str,
    rules: ScriptedRules | str | None,
    *,
    client: RulesClient | None = None,
    **settings: Any,
) -> Iterator[RunningGateway]:
    address = upstream if isinstance(upstream, str) else upstream.base_url
    url = rules.url if isinstance(rules, ScriptedRules) else rules
    if client is None and url is not None:
        client = RulesClient(url, waits=(0.01,))
    gateway = Gateway(Settings(address, **settings), client)
    with LiveServer(gateway.app) as served:
        yield RunningGateway(gateway, served)


def post(
    gateway: RunningGateway,
    body: dict[str, Any] | bytes,
    *,
    headers: dict[str, str] | None = None,
    path: str = "/chat/completions",
) -> httpx2.Response:
    """Sends one request and reads the whole reply."""
    raw = body if isinstance(body, bytes) else json.dumps({"model": "scripted", **body}).encode()
    all_headers = {"content-type": "application/json", "authorization": "Bearer sk-caller", **(headers or {})}
    with httpx2.Client(timeout=30) as client:
        return client.post(gateway.base_url + path, content=raw, headers=all_headers)


def chunks(reply: httpx2.Response) -> list[dict[str, Any]]:
    """Parses the JSON events of a streamed reply."""
    lines = reply.text.splitlines()
    return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]


def text(reply: httpx2.Response, field: str = "content") -> str:
    """Joins the text deltas of a streamed reply."""
    deltas = [choice["delta"] for chunk in chunks(reply) for choice in chunk["choices"]]
    return "".join(delta.get(field) or "" for delta in deltas)


def tool_names(body: dict[str, Any]) -> list[str]:
    """Returns the names of the tools in a request, in order."""
    return [tool["function"]["name"] for tool in body.get("tools", [])]


def parse_reply(reply: httpx2.Response) -> tuple[str | None, Any, list[Any]]:
    """Returns content, finish reason and tool calls of a reply, whole or streamed."""
    if "event-stream" not in reply.headers["content-type"]:
        choice = reply.json()["choices"][0]
        return (
            choice["message"].get("content"),
            choice["finish_reason"],
            choice["message"].get("tool_calls") or [],
        )
    calls: dict[int, dict[str, Any]] = {}
    finishes = []
    for chunk in chunks(reply):
        for choice in chunk["choices"]:
            finishes += [choice["finish_reason"]] if choice["finish_reason"] else []
            for entry in choice["delta"].get("tool_calls") or []:
                merged = calls.setdefault(entry["index"], {"function": {"arguments": ""}})
                merged["id"] = entry.get("id") or merged.get("id")
                merged["function"]["name"] = entry["function"].get("name") or merged["function"].get("name")
                merged["function"]["arguments"] += entry["function"].get("arguments") or ""
    assert len(finishes) == 1
    assert reply.text.count("data: [DONE]") == 1
    assert reply.text.endswith("data: [DONE]\n\n")
    roles = [c["delta"]["role"] for chunk in chunks(reply) for c in chunk["choices"] if "role" in c["delta"]]
    assert roles == ["assistant"]
    return text(reply), finishes[0], [calls[i] for i in sorted(calls)]
