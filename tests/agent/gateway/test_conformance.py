"""The gateway's invariants hold before upstreams with the oddities of real servers, alone and composed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.types import Receive, Scope
from starlette.types import Send as AsgiSend

from agent.gateway import Settings
from agent.gateway.app import Gateway
from agent.tools import RulesClient
from tests.agent.gateway.compose import play
from tests.agent.gateway.conformance import Api, ApplicationRun, Reply, Send
from tests.fakes.endpoints.upstream_behaviours import BEHAVIOURS, PLAIN, Behaviour
from tests.fakes.endpoints.upstream_simulator import RULE_TOOL, Call, Conversation, Simulator, Turn
from tests.fakes.processes.live_server import LiveServer
from tests.fakes.rules.scripted import ScriptedRules

USERS = 60


class Upstream:
    """A simulator behind a real HTTP server, with a gateway before it."""

    def __init__(self, rules_url: str) -> None:
        self.simulator = Simulator()
        self._server = LiveServer(self)
        self._rules_url = rules_url

    async def __call__(self, scope: Scope, receive: Receive, send: AsgiSend) -> None:
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        raw, more = b"", True
        while more:
            message = await receive()
            raw, more = raw + message.get("body", b""), message.get("more_body", False)
        sent = self.simulator.reply(scope["path"], raw)
        await send({"type": "http.response.start", "status": sent.status, "headers": sent.headers})
        for piece in sent.pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    def __enter__(self) -> Upstream:
        self._server.__enter__()
        gateway = Gateway(Settings(f"{self._server.origin}/v1"), RulesClient(self._rules_url, waits=(0.01,)))
        self._gateway = LiveServer(gateway.app)
        self._gateway.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._gateway.stop()
        self._server.stop()

    def play(self, *runs: ApplicationRun) -> list[str]:
        """Plays conversations at the same time, all with one API key; returns the broken invariants."""

        async def play_all() -> list[str]:
            # Connections expire before the server closes idle ones (5 s), which could cut off a request.
            limits = httpx2.Limits(max_connections=None, keepalive_expiry=1)
            async with httpx2.AsyncClient(timeout=60, limits=limits) as client:
                found = await asyncio.gather(*(run.play(self._sender(client)) for run in runs))
            return [fault for faults in found for fault in faults]

        return [*asyncio.run(play_all()), *self.simulator.faults]

    def _sender(self, client: httpx2.AsyncClient) -> Send:
        async def send(path: str, raw: bytes) -> Reply:
            headers = {"content-type": "application/json", "authorization": "Bearer sk-one-key-for-all"}
            response = await client.post(self._gateway.origin + path, content=raw, headers=headers)
            return Reply(response.status_code, list(response.headers.raw), response.content)

        return send


@pytest.fixture(scope="module")
def rules() -> Iterator[ScriptedRules]:
    with ScriptedRules() as service:
        yield service


@pytest.fixture(scope="module")
def running(rules: ScriptedRules) -> Iterator[Upstream]:
    with Upstream(rules.url) as upstream:
        yield upstream


@pytest.fixture
def upstream(running: Upstream) -> Upstream:
    running.simulator = Simulator()
    return running


def every_kind_of_turn(marker: str) -> list[Turn]:
    """Returns turns that consult, that also call tools, that call two tools at once, and that answer."""

    def consult(number: int) -> Call:
        return Call(RULE_TOOL, {"situation": f"{marker} situation {number}"})

    def weather(city: str) -> Call:
        return Call("get_weather", {"city": f"{marker} {city}"})

    return [
        Turn(f"{marker} let me look. ", (consult(1),)),
        Turn(f"{marker} looking again. ", (consult(2), weather("Oslo"))),
        Turn(f"{marker} it rains.", ()),
        Turn(f"{marker} two cities. ", (weather("Rome"), weather("Bern"))),
        Turn(f"{marker} two rules. ", (consult(3), consult(4))),
        Turn(f"{marker} tool first. ", (weather("Nice"), consult(5))),
        Turn(f"{marker} done.", ()),
    ]


def conversations(name: str, simulator: Simulator) -> list[ApplicationRun]:
    """Returns a conversation for each API that the behaviour concerns, whole and streamed."""
    runs, named = [], BEHAVIOURS[name]
    for number, (api, stream) in enumerate((a, s) for a in named.apis for s in (False, True)):
        marker = f"marker-{number}-"
        conversation = Conversation(marker, every_kind_of_turn(marker), named.behaviour)
        simulator.add(conversation)
        fields: dict[str, Any] = {}
        if named.behaviour.forbids_format_with_tools:
            fields["response_format"] = {"type": "json_object"}
        if named.behaviour.forgets_reasoning:
            fields["store"] = False
        checked: Api = "chat" if api == "chat" else "responses"
        runs.append(ApplicationRun(conversation, checked, stream=stream, fields=fields))
    return runs


@pytest.mark.parametrize("name", sorted(BEHAVIOURS))
def test_the_invariants_hold_before_an_upstream_with(name: str, upstream: Upstream) -> None:
    assert upstream.play(*conversations(name, upstream.simulator)) == []
    # The application itself sends what some of these servers refuse, so its conversation ends early.
    played = upstream.simulator.conversations.values()
    assert all(len(c.played) == len(c.turns) or c.refusals for c in played)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(min_value=0, max_value=2**40), st.booleans())
def test_the_invariants_hold_for_composed_behaviours_and_conversations(seed: int, hint: bool) -> None:
    assert play(seed, hint=hint) == []


def test_users_behind_one_key_whose_calls_are_numbered_alike_do_not_meet(upstream: Upstream) -> None:
    behaviours: list[Behaviour] = [replace(PLAIN, ids="numbered"), replace(PLAIN, ids="zero")]
    runs = []
    for number in range(USERS):
        marker = f"marker-{number}-"
        conversation = Conversation(marker, every_kind_of_turn(marker), behaviours[number % 2])
        upstream.simulator.add(conversation)
        api: Api = "chat" if number % 4 < 2 else "responses"
        runs.append(ApplicationRun(conversation, api, stream=number % 3 == 0))
    assert upstream.play(*runs) == []
    assert all(len(c.played) == len(c.turns) for c in upstream.simulator.conversations.values())
