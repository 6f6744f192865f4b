"""Unpacks the bundle for desktop hosts and starts it as its manifest states, with a separate uv."""

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
    config = manifest["server"]["mcp_config"]

    def expand(text: str) -> str:
        return text.replace("${__dirname}", str(folder))

    uv = venv("uv", "uv==0.13.9").parent
    env = {name: value for name, value in os.environ.items() if "CERT" in name or "UV_" in name}
    env |= {name: expand(value) for name, value in config["env"].items()}
    env |= {"PATH": f"{uv}{os.pathsep}{os.environ['PATH']}", "HOME": str(tmp_path)}
    env |= {"UV_CACHE_DIR": str(CACHE / "uv-cache")}
    command = [expand(argument) for argument in config["args"]]
    # A host does this once, before it starts the server for the first time.
    run(uv / "uv", "sync", "--quiet", "--directory", folder, cwd=tmp_path)
    server = StdioServerParameters(command=config["command"], args=command, env=env, cwd=tmp_path)

    async def consult() -> tuple[list[str], Any]:
        async with Client(stdio_client(server)) as client:
            tools = [tool.name for tool in (await client.list_tools()).tools]
            question = {"situation": "someone asks for a computer virus"}
            return tools, await client.call_tool(tools[0], question)

    tools, answer = asyncio.run(consult())
    assert tools == [tool["name"] for tool in manifest["tools"]]
    assert answer.structured_content["verdict"] == "rules_found"
