"""A line about the rules near a request: the MCP prompt over real HTTP, and the agent that passes it on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, MCPError
from typer.testing import CliRunner

from agent.cli.app import app
from agent.episode import Episode, read_log, text_digest
from agent.episode.validate import episode_problems
from evaluation.cli.app import app as evaluation
from rule_server.api.auth import new_token
from tests.fakes.endpoints.scripted import ScriptedEndpoint, call
from tests.fakes.episodes.agent_run import run_agent
from tests.fakes.rules.scripted import ScriptedRules
from tests.fakes.rules.toy_service import QUESTION, ToyServer, serve_toy

REQUEST = QUESTION["situation"]


def ask(server: ToyServer, use: Callable[[Client], Awaitable[Any]]) -> Any:
    async def session() -> Any:
        async with Client(f"{server.origin}/mcp") as client:
            return await use(client)

    return asyncio.run(session())


def hint(server: ToyServer, **arguments: str) -> Any:
    return ask(server, lambda client: client.get_prompt("safety_rules_hint", arguments))


@pytest.fixture
def toy(tmp_path: Path) -> Iterator[ToyServer]:
    with serve_toy(tmp_path, audit_file=tmp_path / "audit.jsonl") as server:
        yield server


def audit_lines(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]


def test_a_hint_names_the_rules_that_a_consultation_would_find(toy: ToyServer) -> None:
    found = toy.client.post("/v1/consult", json=QUESTION).json()
    result = hint(toy, request=REQUEST)
    text = result.messages[0].content.text
    assert "\n" not in text
    assert all(f"{rule['title']} ({rule['stance']})" in text for rule in found["rules"])
    details = result.meta["ascl/hint"]
    assert details["version"] == "1"
    assert [rule["id"] for rule in details["rules"]] == [rule["id"] for rule in found["rules"]]
    assert details["rulebook"] == found["rulebook"]
    assert "text" not in details["rules"][0]


def test_a_hint_says_that_no_rule_is_near(tmp_path: Path) -> None:
    with serve_toy(tmp_path, threshold=2.0) as server:
        assert (
            hint(server, request=REQUEST).messages[0].content.text == "No safety rule is near this request."
        )


def test_a_hint_is_audited_as_a_hint_and_counted_apart_from_consultations(
    toy: ToyServer, tmp_path: Path
) -> None:
    hint(toy, request=REQUEST)
    [line] = audit_lines(tmp_path)
    assert (line["request"], line["verdict"]) == ("hint", "rules_found")
    metrics = toy.client.get("/metrics").text
    assert 'ascl_hints_total{verdict="rules_found"} 1.0' in metrics
    assert 'ascl_consultations_total{verdict="rules_found"} 0.0' in metrics


def test_a_consultation_with_the_text_of_the_hint_is_not_embedded_again(toy: ToyServer) -> None:
    hint(toy, request=REQUEST)
    toy.client.post("/v1/consult", json=QUESTION)
    assert 'ascl_cache_total{result="hit"} 1.0' in toy.client.get("/metrics").text


def test_the_tool_list_keeps_one_tool(toy: ToyServer) -> None:
    assert len(ask(toy, lambda client: client.list_tools()).tools) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "takes one argument: request"),
        ({"request": "x" * 100_000}, "`request`"),
        ({"request": ""}, "`request`"),
    ],
)
def test_a_wrong_argument_is_an_invalid_parameter(
    toy: ToyServer, arguments: dict[str, str], message: str
) -> None:
    wrong = pytest.RaisesExc(MCPError, match=message, check=lambda error: error.code == -32602)
    with pytest.RaisesGroup(wrong, allow_unwrapped=True, flatten_subgroups=True):
        hint(toy, **arguments)


def test_a_hint_needs_the_scope_to_consult(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.json"
    token = new_token(tokens, "reader", ["read"], "now")
    with serve_toy(tmp_path, tokens_file=tokens) as server:
        params = {"name": "safety_rules_hint", "arguments": {"request": REQUEST}}
        body = {"jsonrpc": "2.0", "id": 1, "method": "prompts/get", "params": params}
        reply = server.client.post("/mcp", json=body, headers={"Authorization": f"Bearer {token}"})
    assert reply.status_code == 403


def run_hinted(server: ToyServer, endpoint: ScriptedEndpoint, **settings: Any) -> Episode:
    return run_agent(REQUEST, endpoint, f"{server.origin}/mcp", hint_share=1.0, **settings)


def test_the_agent_ends_the_system_text_with_the_hint_and_the_model_decides(toy: ToyServer) -> None:
    with ScriptedEndpoint(["An answer."]) as endpoint:
        episode = run_hinted(toy, endpoint, system="Be brief.")
    assert episode.hint is not None
    text = f"Be brief.\n\n{episode.hint.text}"
    assert endpoint.requests[0]["messages"][0] == {"role": "system", "content": text}
    assert episode.messages[0]["content"] == text
    assert episode.hint.rules[0].id == "cyber.malware"
    assert (episode.hint.version, episode.hint.verdict) == ("1", "rules_found")
    assert (episode.mode, episode.consultations) == ("direct", [])
    assert episode.prompt_digest == text_digest("Be brief.")
    assert episode_problems(episode) == []


def test_without_a_system_text_the_hint_is_the_system_text(toy: ToyServer) -> None:
    with ScriptedEndpoint([call("a virus"), "An answer."]) as endpoint:
        episode = run_hinted(toy, endpoint, system="")
    assert episode.hint is not None
    assert [message["role"] for message in episode.messages] == [
        "system",
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    assert episode.messages[0]["content"] == episode.hint.text
    assert episode_problems(episode) == []


def test_an_episode_without_a_hint_has_the_same_record_as_before(toy: ToyServer) -> None:
    with ScriptedEndpoint(["An answer."]) as endpoint:
        episode = run_agent(REQUEST, endpoint, f"{toy.origin}/mcp")
    assert "hint" not in json.loads(episode.model_dump_json())


def test_all_samples_of_a_prompt_get_a_hint_or_none_does(toy: ToyServer, tmp_path: Path) -> None:
    prompts, log = tmp_path / "prompts.jsonl", tmp_path / "log.jsonl"
    rows = ({"id": f"p{number}", "prompt": f"Question {number}?"} for number in range(12))
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with ScriptedEndpoint(["Yes."] * 24) as endpoint:
        services = ["--base-url", endpoint.base_url, "--model", "scripted", "--rules", f"{toy.origin}/mcp"]
        options = ["--samples", "2", "--hint-share", "0.5", "--log", str(log)]
        run = CliRunner().invoke(app, ["run", "--prompts", str(prompts), *services, *options])
    assert run.exit_code == 0, run.output
    hinted: dict[str, set[bool]] = {}
    groups: dict[str, set[str]] = {}
    for episode in read_log(log).episodes:
        hinted.setdefault(episode.prompt_id, set()).add(episode.hint is not None)
        groups.setdefault(episode.prompt_id, set()).add(episode.group_id)
    assert all(len(values) == 1 for values in (*hinted.values(), *groups.values()))
    assert 0 < sum(values == {True} for values in hinted.values()) < 12


def test_hints_need_a_rule_service() -> None:
    run = CliRunner().invoke(
        app,
        [
            "run",
            "--prompts",
            "p",
            "--log",
            "l",
            "--rules",
            "none",
            "--hint",
            "--base-url",
            "http://h",
            "--model",
            "m",
        ],
    )
    assert run.exit_code != 0


def test_a_service_without_hints_is_named() -> None:
    with ScriptedRules() as rules, ScriptedEndpoint(["4"]) as endpoint:
        episode = run_agent("What is 2 + 2?", endpoint, rules, hint_share=1.0)
    assert episode.error is not None
    assert (episode.error.boundary, episode.error.type) == ("rules", "no_hints")
    assert "update the rule service" in episode.error.message


def test_the_arm_hinted_gives_every_prompt_a_hint(toy: ToyServer, tmp_path: Path) -> None:
    prompts, log = tmp_path / "prompts.jsonl", tmp_path / "log.jsonl"
    prompts.write_text(json.dumps({"id": "p", "prompt": REQUEST, "kind": "harmful"}) + "\n")
    with ScriptedEndpoint(["I cannot help with that."]) as endpoint:
        services = ["--base-url", endpoint.base_url, "--model", "scripted", "--rules", f"{toy.origin}/mcp"]
        run = CliRunner().invoke(
            evaluation, ["run", "--prompts", str(prompts), "--arm", "hinted", "--log", str(log), *services]
        )
    assert run.exit_code == 0, run.output
    [episode] = read_log(log).episodes
    assert episode.hint is not None
