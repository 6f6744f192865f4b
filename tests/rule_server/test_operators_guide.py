"""The settings reference, the operators guide, and the promise that the service opens no connection."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from rule_server.cli.settings import settings_reference
from rule_server.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


def test_the_settings_reference_is_current() -> None:
    assert all(field.description for field in Settings.model_fields.values())
    reference = (ROOT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")
    assert reference == settings_reference(), "run `make reference`"


def test_serving_opens_no_outbound_connection(tmp_path: Path) -> None:
    code = """
import sys, threading
from pathlib import Path
import httpx2
connections = []
def watch(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto", "urllib.Request"):
        if threading.current_thread() is not threading.main_thread():
            connections.append((event, str(args)))
sys.addaudithook(watch)
from tests.fakes.rules.toy_service import QUESTION, serve_toy
folder = Path(sys.argv[1])
with serve_toy(folder, audit_file=folder / "audit.jsonl", watch=True) as served:
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {"name": "consult_safety_rules", "arguments": QUESTION}}
    accept = {"Accept": "application/json, text/event-stream", "mcp-protocol-version": "2025-11-25"}
    statuses = [
        served.client.post("/v1/consult", json=QUESTION).status_code,
        served.client.post("/mcp", json=call, headers=accept).status_code,
        served.client.post("/v1/admin/reload").status_code,
        *(served.client.get(path).status_code for path in ("/", "/metrics", "/openapi.json", "/v1/usage")),
    ]
print(statuses, connections)
"""
    process = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=120, cwd=ROOT
    )
    assert process.stdout == f"{[200] * 7} []\n", process.stderr


def test_the_operators_guide_names_only_settings_that_exist() -> None:
    guide = (ROOT / "docs" / "guides" / "operators.md").read_text(encoding="utf-8")
    named = {name.lower() for name in re.findall(r"ASCL_RULES_([A-Z][A-Z_]+[A-Z])", guide)}
    assert named <= set(Settings.model_fields)
