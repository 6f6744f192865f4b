"""The bundle for desktop hosts, unpacked and started as its manifest tells a host to, by a uv of its own."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from tests.clients.fetched import CACHE, run, venv

pytestmark = [
    pytest.mark.clients,
    pytest.mark.skipif(shutil.which("npx") is None, reason="npx is not installed"),
]
ROOT = Path(__file__).resolve().parents[2]


def test_the_bundle_consults_as_soon_as_a_host_has_unpacked_it(tmp_path: Path) -> None:
    run(sys.executable, ROOT / "deploy" / "mcpb_bundle.py", cwd=ROOT)
    [bundle] = (ROOT / "dist").glob("ascl-rules-*.mcpb")
    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(folder)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    told = manifest["server"]["mcp_config"]

    def here(text: str) -> str:
        return text.replace("${__dirname}", str(folder))

    uv = venv("uv", "uv==0.13.9").parent
    env = {name: value for name, value in os.environ.items() if "CERT" in name or "UV_" in name}
    env |= {name: here(value) for name, value in told["env"].items()}
    env |= {"PATH": f"{uv}{os.pathsep}{os.environ['PATH']}", "HOME": str(tmp_path)}
    env |= {"UV_CACHE_DIR": str(CACHE / "uv-cache")}
    command = [here(argument) for argument in told["args"]]
    # What a host does once, before it starts the server for the first time.
    run(uv / "uv", "sync", "--quiet", "--directory", folder, cwd=tmp_path)
    server = StdioServerParameters(command=told["command"], args=command, env=env, cwd=tmp_path)

    async def consult() -> tuple[list[str], Any]:
        async with Client(stdio_client(server)) as client:
            tools = [tool.name for tool in (await client.list_tools()).tools]
            question = {"situation": "someone asks for a computer virus"}
            return tools, await client.call_tool(tools[0], question)

    tools, answer = asyncio.run(consult())
    assert tools == [tool["name"] for tool in manifest["tools"]]
    assert answer.structured_content["verdict"] == "rules_found"
