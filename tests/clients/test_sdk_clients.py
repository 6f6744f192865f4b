"""Runs the clients of the official SDKs, TypeScript and Python, in both generations, over HTTP and stdio.

Every client holds the same conversation (`talks/`) and must report the same results.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.clients.fetched import node, venv

pytestmark = pytest.mark.clients
ROOT = Path(__file__).resolve().parents[2]
TALKS = Path(__file__).with_name("talks")
OLD, NEW = "2025-11-25", "2026-07-28"
CLIENTS = [
    pytest.param("typescript-1", "", OLD, id="typescript-1"),
    pytest.param("typescript-2", "legacy", OLD, id="typescript-2-as-it-comes"),
    pytest.param("typescript-2", "auto", NEW, id="typescript-2-newest"),
    pytest.param("python-1", "", OLD, id="python-1"),
    pytest.param("python-2", "legacy", OLD, id="python-2-legacy"),
    pytest.param("python-2", "auto", NEW, id="python-2-newest"),
]
PACKAGES = {
    "typescript-1": "@modelcontextprotocol/sdk@1.32.2",
    "typescript-2": "@modelcontextprotocol/client@2.4.0",
    "python-1": "mcp==1.30.0",
}


def command(client: str) -> list[str]:
    """Returns the command that runs the conversation with this client."""
    if client == "python-2":
        return [sys.executable, str(TALKS / "python_2.py")]
    if client == "python-1":
        return [str(venv(client, PACKAGES[client])), str(TALKS / "python_1.py")]
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    folder = node(client, PACKAGES[client])
    for file in TALKS.glob("*.*"):
        shutil.copy(file, folder)
    return ["node", str(folder / f"{client}.mjs")]


@pytest.mark.parametrize("transport", ["http", "stdio"])
@pytest.mark.parametrize(("client", "mode", "protocol"), CLIENTS)
def test_a_client_lists_asks_and_reads(
    client: str, mode: str, protocol: str, transport: str, url: str, stdio: list[str]
) -> None:
    done = subprocess.run(
        [*command(client), transport, *([url] if transport == "http" else stdio)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=ROOT,
        env={**os.environ, "TALK_MODE": mode},
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    if report["protocol"] is not None:
        assert report["protocol"] == protocol
    assert report["tools"] == ["consult_safety_rules"]
    assert report["resources"] == ["rulebook://current"]
    assert report["templates"] == ["rules://{id}"]
    assert report["prompts"] == ["safety_rules_guidance", "safety_rules_hint"]
    assert "consult_safety_rules" in report["prompt"]
    assert report["rule"]["id"] == "cyber.malware"
    assert report["unknown"] == -32602
    check_answer(report["question"], report["rulebook"]["digest"])
    check_answer(report["nulls"], report["rulebook"]["digest"])
    assert report["wrong"]["isError"] is True
    assert "`top_k`: input should be a valid integer" in report["wrong"]["content"][0]["text"]


def check_answer(result: dict[str, Any], digest: str) -> None:
    """The rules are in the data and in the text, because a client may forward only one of them."""
    assert not result.get("isError")
    data, [block] = result["structuredContent"], result["content"]
    assert data["verdict"] == "rules_found"
    assert data["rulebook"]["digest"] == digest
    for rule in data["rules"]:
        assert rule["text"] in block["text"]
    assert data["rules"][0]["category"] == "cyber"
