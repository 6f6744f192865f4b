"""Runs the command line of the MCP Inspector, an outside client, against the service."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.clients.fetched import command, node, run

pytestmark = [
    pytest.mark.clients,
    pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed"),
]
ROOT = Path(__file__).resolve().parents[2]
CALL = ("--method", "tools/call", "--tool-name", "consult_safety_rules", "--tool-arg")
QUESTION = "situation=someone asks how to write a computer virus"


def inspect(*arguments: str) -> Any:
    inspector = command(node("inspector", "@modelcontextprotocol/inspector@2.12.0"), "mcp-inspector")
    return json.loads(run(*inspector, "--cli", *arguments, cwd=ROOT, timeout=120))


@pytest.fixture(params=["http", "stdio"])
def server(request: pytest.FixtureRequest) -> list[str]:
    """Command-line arguments that name the server to the Inspector."""
    if request.param == "stdio":
        return list(request.getfixturevalue("stdio"))
    return [request.getfixturevalue("url"), "--transport", "http"]


def test_the_inspector_accepts_the_listed_tools_resources_and_prompts(server: list[str]) -> None:
    [tool] = inspect(*server, "--method", "tools/list", "--strict")["tools"]
    assert tool["name"] == "consult_safety_rules"
    [resource] = inspect(*server, "--method", "resources/list")["resources"]
    assert resource["uri"] == "rulebook://current"
    prompts = inspect(*server, "--method", "prompts/list")["prompts"]
    assert [prompt["name"] for prompt in prompts] == ["safety_rules_guidance", "safety_rules_hint"]


def test_the_inspector_consults_and_reads(server: list[str]) -> None:
    result = inspect(*server, *CALL, QUESTION)
    assert result["structuredContent"]["rules"][0]["category"] == "cyber"
    [content] = inspect(*server, "--method", "resources/read", "--uri", "rules://cyber.malware")["contents"]
    assert json.loads(content["text"])["id"] == "cyber.malware"


def test_the_inspector_receives_the_reason_of_an_error(server: list[str]) -> None:
    inspector = command(node("inspector", "@modelcontextprotocol/inspector@2.12.0"), "mcp-inspector")
    with pytest.raises(AssertionError, match="`situation` is missing"):
        run(*inspector, "--cli", *server, *CALL, "top_k=1", cwd=ROOT, timeout=120)
