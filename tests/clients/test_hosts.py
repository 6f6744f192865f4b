"""Compares the hosts' snippets with a package that lists the configuration keys of each host."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest

from tests.clients.fetched import node
from tests.rule_server.test_clients_guide import ENTRIES

pytestmark = [
    pytest.mark.clients,
    pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed"),
]
FILES = {
    "Claude Desktop": "claude-desktop",
    "Claude Code": "claude-code",
    "VS Code": "vscode",
    "Cursor": "cursor",
    "Codex": "codex",
    "Gemini CLI": "gemini",
    "Windsurf": "windsurf",
    "OpenCode": "opencode",
    "JetBrains AI Assistant and Junie": "junie",
    "Goose": "goose",
}


@pytest.mark.parametrize("host", sorted(FILES))
def test_a_snippet_uses_the_keys_of_its_host(host: str) -> None:
    package = "@gleanwork/mcp-config-schema"
    folder = node("hosts", f"{package}@5.2.0") / "node_modules" / package / "configs"
    schema: dict[str, Any] = json.loads((folder / f"{FILES[host]}.json").read_text())["configStructure"]
    entries = [entry for entry in ENTRIES if entry.host == host]
    assert entries
    for entry in entries:
        assert entry.root == schema["serversPropertyName"]
        names = schema["stdioPropertyMapping" if entry.command else "httpPropertyMapping"]
        required = [names["commandProperty"] if entry.command else names["urlProperty"]]
        assert all(name in entry.server for name in required), (required, entry.server)
        if "typeProperty" in names and "typeValue" in names:
            assert entry.server[names["typeProperty"]] == names["typeValue"]
        if "headers" in str(entry.server):
            assert names["headersProperty"] in entry.server
