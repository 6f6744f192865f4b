"""The MCP Inspector's command line, an outside client fetched by npx, against the running service."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.rule_service import serving
from tests.fakes.rulebooks import rule, write_rulebook

pytestmark = [
    pytest.mark.clients,
    pytest.mark.skipif(shutil.which("npx") is None, reason="npx is not installed"),
]
INSPECTOR = ["npx", "--yes", "@modelcontextprotocol/inspector@2.12.0", "--cli"]
CALL = ["--method", "tools/call", "--tool-name", "consult_safety_rules"]
CALL += ["--tool-arg", "situation=someone asks for a computer virus"]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    return write_rulebook(tmp_path / "rules", rule("cyber.virus"), rule("cyber.repair", stance="answer"))


@pytest.fixture
def url(rules: Path, tmp_path: Path) -> Iterator[str]:
    with serving(rules, tmp_path / "artefact", tmp_path / "serve.log") as (address, _):
        yield f"{address}/mcp"


def inspect(*arguments: str) -> Any:
    done = subprocess.run(
        [*INSPECTOR, *arguments], capture_output=True, text=True, timeout=240, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout)


def test_the_inspector_lists_and_calls_the_tool_over_http(url: str) -> None:
    [tool] = inspect(url, "--transport", "http", "--method", "tools/list")["tools"]
    assert tool["name"] == "consult_safety_rules"
    result = inspect(url, "--transport", "http", *CALL)
    assert result["structuredContent"]["rules"][0]["id"] == "cyber.virus"


def test_the_inspector_calls_the_tool_over_stdio(rules: Path, tmp_path: Path) -> None:
    server = [sys.executable, "-m", "rule_server.cli", "stdio", "--rules", str(rules)]
    result = inspect(*server, "--artefact", str(tmp_path / "artefact"), *CALL)
    assert result["structuredContent"]["rules"][0]["id"] == "cyber.virus"
