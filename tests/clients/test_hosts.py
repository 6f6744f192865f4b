"""The hosts' snippets against a package that knows how each host names things."""

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
def test_a_snippet_names_things_as_its_host_does(host: str) -> None:
    package = "@gleanwork/mcp-config-schema"
    folder = node("hosts", f"{package}@5.2.0") / "node_modules" / package / "configs"
    known: dict[str, Any] = json.loads((folder / f"{FILES[host]}.json").read_text())["configStructure"]
    mine = [entry for entry in ENTRIES if entry.host == host]
    assert mine
    for entry in mine:
        assert entry.root == known["serversPropertyName"]
        names = known["stdioPropertyMapping" if entry.command else "httpPropertyMapping"]
        needed = [names["commandProperty"] if entry.command else names["urlProperty"]]
        assert all(name in entry.server for name in needed), (needed, entry.server)
        if "typeProperty" in names and "typeValue" in names:
            assert entry.server[names["typeProperty"]] == names["typeValue"]
        if "headers" in str(entry.server):
            assert names["headersProperty"] in entry.server
