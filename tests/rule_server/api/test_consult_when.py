"""A rulebook says when it is to be consulted, and which score a rule needs, over real HTTP and MCP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from mcp import Client

from agent import system_prompt
from rule_server import load_rulebook
from rule_server.rulebook import read_folders
from rule_server.settings import packaged_rules
from tests.fakes.endpoints.scripted import ScriptedEndpoint
from tests.fakes.episodes.agent_run import run_agent
from tests.fakes.processes.live_server import LiveServer
from tests.fakes.rules.rulebooks import rule, write_rulebook
from tests.fakes.rules.toy_service import QUESTION, ToyServer, serve_toy

CLAUSE = "a request is about a bank's fees, cards or transfers"


def describe(folder: Path, **values: Any) -> Path:
    """Adds keys to a folder's rulebook.yaml."""
    file = folder / "rulebook.yaml"
    file.write_text(file.read_text(encoding="utf-8") + yaml.safe_dump(values), encoding="utf-8")
    return folder


def ask(server: LiveServer, use: Callable[[Client], Awaitable[Any]]) -> Any:
    async def session() -> Any:
        async with Client(f"{server.origin}/mcp") as client:
            return await use(client)

    return asyncio.run(session())


def reload(server: ToyServer, folder: Path) -> None:
    """Waits until the running service serves the edited folder."""
    digest = load_rulebook(folder).digest
    for _ in range(400):
        if server.client.get("/readyz").json()["digest"] == digest:
            return
        time.sleep(0.05)
    raise AssertionError(server.client.get("/readyz").json())


def described(server: LiveServer) -> str:
    [tool] = ask(server, lambda client: client.list_tools()).tools
    return str(tool.description)


def guidance(server: LiveServer) -> str:
    prompt = ask(server, lambda client: client.get_prompt("safety_rules_guidance"))
    return str(prompt.messages[0].content.text)


@pytest.fixture
def toy(tmp_path: Path) -> Any:
    with serve_toy(tmp_path, watch=True) as server:
        yield server


def test_a_rulebook_is_described_by_its_categories_unless_it_says_more(toy: ToyServer) -> None:
    summary = "(Something to be careful with)"
    expected = f"a request concerns Cyber {summary}; Kitchen {summary}"
    assert f"Call it when {expected}." in described(toy)
    assert f"When {expected}, describe" in guidance(toy)


def test_an_edit_of_consult_when_reaches_tool_and_prompt_of_the_running_service(
    toy: ToyServer, tmp_path: Path
) -> None:
    describe(tmp_path / "rules", consult_when=CLAUSE)
    reload(toy, tmp_path / "rules")
    assert f"Call it when {CLAUSE}." in described(toy)
    assert f"When {CLAUSE}, describe" in guidance(toy)


def test_a_rulebook_with_many_categories_keeps_the_tool_list_short(tmp_path: Path) -> None:
    with serve_toy(tmp_path, watch=True) as server:
        rules = [rule(f"area-number-{number:03}.topic", stance="limit") for number in range(150)]
        write_rulebook(tmp_path / "rules", *rules)
        reload(server, tmp_path / "rules")
        [tool] = ask(server, lambda client: client.list_tools()).tools
        assert len(tool.model_dump_json(by_alias=True, exclude_none=True)) / 4 < 600
        assert "Area-number-000; Area-number-001" in tool.description
        assert "more areas" in tool.description


def test_the_description_that_an_operator_sets_wins(tmp_path: Path) -> None:
    with serve_toy(tmp_path, tool_description="Ask me about knives.") as server:
        assert described(server) == "Ask me about knives."


def test_rules_over_the_packaged_ones_are_consulted_for_both(tmp_path: Path) -> None:
    packaged = load_rulebook(packaged_rules())
    own = write_rulebook(tmp_path / "own", rule("banking.fees"))
    describe(own, extends="ascl-core")
    assert load_rulebook(own).consult_when == f"{packaged.consult_when}, or when a request concerns Banking"
    describe(own, consult_when=CLAUSE)
    assert load_rulebook(own).consult_when == f"{packaged.consult_when}, or when {CLAUSE}"


def test_both_texts_count_in_the_digest_and_a_rulebook_without_them_keeps_its_digest(tmp_path: Path) -> None:
    folder = write_rulebook(tmp_path / "rules", rule())
    plain = load_rulebook(folder)
    assert "consult_when" not in plain.canonical()
    digests = {plain.digest}
    digests.add(load_rulebook(describe(folder, consult_when=CLAUSE)).digest)
    digests.add(load_rulebook(describe(folder, threshold=0.4)).digest)
    assert len(digests) == 3


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"threshold": 1.5}, "`threshold`"),
        ({"threshold": "high"}, "`threshold`"),
        ({"consult_when": ""}, "`consult_when`"),
        ({"consult_when": "x" * 441}, "`consult_when`"),
    ],
)
def test_an_invalid_value_is_named_with_its_file(
    tmp_path: Path, values: dict[str, Any], problem: str
) -> None:
    folder = describe(write_rulebook(tmp_path / "rules", rule()), **values)
    [found] = read_folders(folder).problems
    assert found.rule == "rulebook.yaml"
    assert problem in found.problem


def test_the_threshold_travels_with_the_rulebook(tmp_path: Path) -> None:
    with serve_toy(tmp_path, threshold=None, watch=True) as server:
        describe(tmp_path / "rules", threshold=0.99)
        reload(server, tmp_path / "rules")
        answer = server.client.post("/v1/consult", json=QUESTION).json()
        assert (answer["verdict"], answer["threshold"]) == ("no_applicable_rule", 0.99)
        threshold = server.client.get("/readyz").json()["threshold"]
        assert threshold == {"value": 0.99, "note": "set in rulebook.yaml"}


def test_an_explicit_threshold_wins_over_that_of_the_rulebook(tmp_path: Path) -> None:
    with serve_toy(tmp_path, threshold=0.0, watch=True) as server:
        describe(tmp_path / "rules", threshold=0.99)
        reload(server, tmp_path / "rules")
        assert server.client.get("/readyz").json()["threshold"]["value"] == 0.0


def test_an_agent_is_told_of_the_rulebook_that_is_served(toy: ToyServer, tmp_path: Path) -> None:
    describe(tmp_path / "rules", consult_when=CLAUSE)
    reload(toy, tmp_path / "rules")
    with ScriptedEndpoint(["4"]) as endpoint:
        episode = run_agent("What is 2 + 2?", endpoint, f"{toy.origin}/mcp")
    assert CLAUSE in episode.messages[0]["content"]
    assert CLAUSE in episode.tools[0]["function"]["description"]


def test_an_agent_keeps_its_packaged_text_for_the_packaged_rules(tmp_path: Path) -> None:
    packaged = load_rulebook(packaged_rules()).consult_when
    with serve_toy(tmp_path, watch=True) as server, ScriptedEndpoint(["4"]) as endpoint:
        describe(tmp_path / "rules", consult_when=packaged)
        reload(server, tmp_path / "rules")
        episode = run_agent("What is 2 + 2?", endpoint, f"{server.origin}/mcp")
    assert episode.messages[0]["content"] == system_prompt()
