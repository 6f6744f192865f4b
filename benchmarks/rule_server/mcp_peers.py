"""Runs Chroma's and Qdrant's MCP servers over the same rules and the packaged model, by stdio.

Each has its own environment under build/, because their requirements conflict with those of ASCL.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.tools.cpu_pinning import ROOT, SERVER_CORE, cpu_seconds, pin_to_core, server_environment
from benchmarks.tools.http_load import LoadResult
from rule_server.retrieval import MODEL_FILE, resolve_model
from rule_server.rulebook import Rulebook

REQUIREMENTS = {"chroma": "chroma-mcp==0.2.6", "qdrant": "mcp-server-qdrant==0.8.1"}
EXTRA_REQUIREMENTS = {"chroma": ["pydantic<2.11"], "qdrant": []}
"""Further requirements of a release: chroma-mcp pins an MCP SDK that newer pydantic versions cannot load."""
COMMANDS = {"chroma": ["chroma-mcp", "--client-type", "ephemeral"], "qdrant": ["mcp-server-qdrant"]}
TOKENIZER_FILES = (
    "config.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "vocab.txt",
)


def install_peer(name: str, encoder: Path) -> Path:
    """Installs a server and copies the model of an encoder folder to its cache. Returns its home folder.

    Raises:
        RuntimeError: the server cannot be installed.
    """
    folder = ROOT / "build" / f"bench-{name}"
    if not (folder / "bin" / COMMANDS[name][0]).exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        process = subprocess.run(
            [
                str(folder / "bin" / "pip"),
                "install",
                "--quiet",
                REQUIREMENTS[name],
                *EXTRA_REQUIREMENTS[name],
            ],
            capture_output=True,
            text=True,
        )
        if process.returncode:
            raise RuntimeError(
                f"{REQUIREMENTS[name]} cannot be installed: {process.stderr.strip().splitlines()[-1]}"
            )
    home = ROOT / "build" / f"bench-{name}-home"
    if name == "chroma":
        cache = home / ".cache" / "chroma" / "onnx_models" / "all-MiniLM-L6-v2" / "onnx"
    else:
        repository = home / "fastembed" / "models--Qdrant--all-MiniLM-L6-v2-onnx"
        cache = repository / "snapshots" / "packaged"
        (repository / "refs").mkdir(parents=True, exist_ok=True)
        (repository / "refs" / "main").write_text("packaged", encoding="utf-8")
    cache.mkdir(parents=True, exist_ok=True)
    for file in TOKENIZER_FILES:
        shutil.copy(resolve_model(None) / file, cache)
    _add_token_type_input(encoder / MODEL_FILE, cache / "model.onnx")
    return home


def _add_token_type_input(source: Path, target: Path) -> None:
    """Copies a model and adds an unused input `token_type_ids`, which these servers send."""
    import onnx

    model = onnx.load(str(source))
    token_types = onnx.helper.make_tensor_value_info(
        "token_type_ids", onnx.TensorProto.INT64, ["batch", "length"]
    )
    model.graph.input.append(token_types)
    onnx.save(model, str(target))


@dataclass
class PeerServer:
    """A running MCP server with a JSON Lines connection."""

    name: str
    process: asyncio.subprocess.Process
    pending: dict[int, asyncio.Future[Any]] = field(default_factory=dict)
    request_count: int = 0

    def cpu(self) -> float:
        """Returns the seconds of processor time used so far."""
        return cpu_seconds(psutil.Process(self.process.pid))

    async def listen(self) -> None:
        """Reads responses and resolves the pending requests."""
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            try:
                message = json.loads(line)
            except ValueError:
                continue  # one of the servers prints to standard output
            future = self.pending.pop(message.get("id", -1), None)
            if future is not None and not future.done():
                future.set_result(message)
        for future in self.pending.values():
            future.cancel()

    async def request(self, method: str, parameters: dict[str, Any]) -> Any:
        """Sends a request. Returns its result, or raises RuntimeError if it is an error."""
        self.request_count += 1
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.pending[self.request_count] = future
        self._write({"jsonrpc": "2.0", "id": self.request_count, "method": method, "params": parameters})
        message = await asyncio.wait_for(future, 300)
        if "result" not in message or message["result"].get("isError"):
            raise RuntimeError(f"{self.name}: {json.dumps(message)[:300]}")
        return message["result"]

    async def call_tool(self, name: str, arguments: dict[str, Any]) -> Any:
        return await self.request("tools/call", {"name": name, "arguments": arguments})

    def notify(self, method: str) -> None:
        self._write({"jsonrpc": "2.0", "method": method})

    def _write(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message).encode() + b"\n")

    async def query(self, text: str) -> Any:
        """Returns the three nearest rules, or as many as the server returns."""
        if self.name == "chroma":
            arguments = {"collection_name": "rules", "query_texts": [text], "n_results": 3}
            return await self.call_tool("chroma_query_documents", arguments)
        return await self.call_tool("qdrant-find", {"query": text})


@asynccontextmanager
async def run_peer(name: str, home: Path, rulebook: Rulebook) -> AsyncIterator[PeerServer]:
    """Runs a server on the server core, filled with the rules."""
    variables = {
        "HOME": str(home),
        "HF_HUB_OFFLINE": "1",
        "FASTEMBED_CACHE_PATH": str(home / "fastembed"),
        "QDRANT_LOCAL_PATH": str(home / "qdrant"),
        "COLLECTION_NAME": "rules",
        "QDRANT_SEARCH_LIMIT": "3",
        "ANONYMIZED_TELEMETRY": "False",
    }
    shutil.rmtree(home / "qdrant", ignore_errors=True)
    folder = ROOT / "build" / f"bench-{name}" / "bin"
    process = await asyncio.create_subprocess_exec(
        str(folder / COMMANDS[name][0]),
        *COMMANDS[name][1:],
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        cwd=home,
        limit=1 << 24,
        env={**server_environment(**variables), "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"},
        preexec_fn=lambda: pin_to_core(SERVER_CORE),
    )
    peer = PeerServer(name, process)
    listening = asyncio.create_task(peer.listen())
    try:
        parameters = {"protocolVersion": "2025-03-26", "capabilities": {}}
        await peer.request("initialize", {**parameters, "clientInfo": {"name": "benchmark", "version": "1"}})
        peer.notify("notifications/initialized")
        await _fill(peer, rulebook)
        yield peer
    finally:
        listening.cancel()
        process.terminate()
        await asyncio.wait_for(process.wait(), 30)


async def _fill(peer: PeerServer, rulebook: Rulebook) -> None:
    texts = {id: f"{rule.title}. {rule.applies_when}\n{rule.text}" for id, rule in rulebook.served.items()}
    if peer.name == "chroma":
        await peer.call_tool("chroma_create_collection", {"collection_name": "rules"})
        documents = {"documents": list(texts.values()), "ids": list(texts)}
        await peer.call_tool("chroma_add_documents", {"collection_name": "rules", **documents})
    else:
        for id, text in texts.items():
            await peer.call_tool("qdrant-store", {"information": text, "metadata": {"id": id}})


async def load_peer(peer: PeerServer, texts: Sequence[str], at_once: int) -> LoadResult:
    """Queries each text once, `at_once` of them concurrently."""
    remaining = iter(texts)
    times: list[float] = []

    async def client() -> None:
        for text in remaining:
            sent = time.perf_counter()
            await peer.query(text)
            times.append(time.perf_counter() - sent)

    start = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(at_once)))
    return LoadResult(time.perf_counter() - start, times)
