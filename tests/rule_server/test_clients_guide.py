"""Each host's snippet in the clients guide, parsed as the host does: its server lists the consult tool."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from tests.fakes.processes.live_server import LiveServer

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "guides" / "clients.md").read_text(encoding="utf-8")
HOSTS = GUIDE.partition("## Hosts")[2].partition("\n## ")[0]
READERS = {"json": json.loads, "toml": tomllib.loads, "yaml": yaml.safe_load}
ADDRESS = "http://127.0.0.1:8808/mcp"


@dataclass(frozen=True)
class Entry:
    """A server entry of a host's configuration file."""

    host: str
    root: str
    server: dict[str, Any]

    @property
    def command(self) -> list[str]:
        """Command that starts the server; empty for a running service."""
        command = self.server.get("command", self.server.get("cmd", []))
        return command if isinstance(command, list) else [command, *self.server.get("args", [])]

    @property
    def url(self) -> str:
        return str(next(self.server[key] for key in ("url", "httpUrl", "serverUrl") if key in self.server))


def entries() -> Iterator[Entry]:
    for section in HOSTS.split("\n### ")[1:]:
        host = section.partition(":")[0]
        for language, text in re.findall(r"```(json|toml|yaml)\n(.*?)```", section, re.DOTALL):
            [(root, servers)] = READERS[language](text).items()
            [(name, server)] = servers.items()
            assert name == "ascl-rules"
            yield Entry(host, root, server)


ENTRIES = list(entries())


def tools(server: Any) -> list[str]:
    async def list_names() -> list[str]:
        async with Client(server) as client:
            return [tool.name for tool in (await client.list_tools()).tools]

    return asyncio.run(list_names())


def test_every_host_has_a_snippet_that_starts_the_service() -> None:
    hosts = set(re.findall(r"\n### ([^:\n]+):", HOSTS))
    assert len(hosts) >= 9
    assert {entry.host for entry in ENTRIES if entry.command} == hosts


@pytest.mark.parametrize("command", sorted({" ".join(entry.command) for entry in ENTRIES if entry.command}))
def test_the_command_of_a_snippet_serves_the_tool(command: str, artefact: Path, tmp_path: Path) -> None:
    own = tmp_path / "bin" / "ascl-rules"
    own.parent.mkdir()
    own.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m rule_server.cli "$@"\n')
    own.chmod(0o755)
    name, *arguments = command.split()
    server = StdioServerParameters(
        command=name,
        args=arguments,
        cwd=tmp_path,
        env={
            "PATH": f"{own.parent}{os.pathsep}{os.environ['PATH']}",
            "ASCL_RULES_ARTEFACT": str(artefact),
        },
    )
    assert tools(stdio_client(server)) == ["consult_safety_rules"]


def test_the_url_of_every_snippet_is_the_default_of_the_service(served: LiveServer) -> None:
    remote = [entry for entry in ENTRIES if not entry.command]
    assert {entry.url for entry in remote} == {ADDRESS}
    for _ in range(200):
        if httpx2.get(f"{served.origin}/readyz").status_code == 200:
            break
    assert tools(ADDRESS.replace("http://127.0.0.1:8808", served.origin)) == ["consult_safety_rules"]


def test_the_program_with_the_sdk_prints_what_a_model_reads(
    served: LiveServer, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(200):
        if httpx2.get(f"{served.origin}/readyz").status_code == 200:
            break
    [code] = re.findall(r"```python\n(.*?)```", GUIDE.partition("## Frameworks")[0], re.DOTALL)
    exec(compile(code.replace("http://127.0.0.1:8808", served.origin), "clients.md", "exec"), {})
    assert capsys.readouterr().out.strip()
