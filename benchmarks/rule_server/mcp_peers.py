"""Chroma's and Qdrant's own MCP servers over the same rules, by stdio, the packaged model in their caches.

Each lives in an environment of its own under build/, since their requirements contradict ours.
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

from benchmarks.tools.cpu_pinning import ROOT, SERVER_CORE, cpu_seconds, environment, keep_to
from benchmarks.tools.http_load import Load
from rule_server.retrieval import MODEL_FILE, resolve_model
from rule_server.rulebook import Rulebook

PINS = {"chroma": "chroma-mcp==0.2.6", "qdrant": "mcp-server-qdrant==0.8.1"}
OLDER = {"chroma": ["pydantic<2.11"], "qdrant": []}
"""What a release needs beside itself: chroma-mcp pins an MCP SDK that no newer pydantic loads."""
COMMANDS = {"chroma": ["chroma-mcp", "--client-type", "ephemeral"], "qdrant": ["mcp-server-qdrant"]}
VOCABULARY = (
    "config.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "vocab.txt",
)


def prepare(name: str, encoder: Path) -> Path:
    """Install the server and seed its cache with the model of an encoder folder; its own home folder.

    Raises:
        RuntimeError: when it cannot be installed.
    """
    folder = ROOT / "build" / f"bench-{name}"
    if not (folder / "bin" / COMMANDS[name][0]).exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        done = subprocess.run(
            [str(folder / "bin" / "pip"), "install", "--quiet", PINS[name], *OLDER[name]],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{PINS[name]} cannot be installed: {done.stderr.strip().splitlines()[-1]}")
    home = ROOT / "build" / f"bench-{name}-home"
    if name == "chroma":
        cache = home / ".cache" / "chroma" / "onnx_models" / "all-MiniLM-L6-v2" / "onnx"
    else:
        repository = home / "fastembed" / "models--Qdrant--all-MiniLM-L6-v2-onnx"
        cache = repository / "snapshots" / "packaged"
        (repository / "refs").mkdir(parents=True, exist_ok=True)
        (repository / "refs" / "main").write_text("packaged", encoding="utf-8")
    cache.mkdir(parents=True, exist_ok=True)
    for file in VOCABULARY:
        shutil.copy(resolve_model(None) / file, cache)
    _with_token_types(encoder / MODEL_FILE, cache / "model.onnx")
    return home


def _with_token_types(source: Path, target: Path) -> None:
    """The same graph with one more input, which these servers send and which changes nothing."""
    import onnx

    model = onnx.load(str(source))
    more = onnx.helper.make_tensor_value_info("token_type_ids", onnx.TensorProto.INT64, ["batch", "length"])
    model.graph.input.append(more)
    onnx.save(model, str(target))


@dataclass
class Peer:
    """A running MCP server that is spoken to in lines of JSON."""

    name: str
    process: asyncio.subprocess.Process
    waiting: dict[int, asyncio.Future[Any]] = field(default_factory=dict)
    sent: int = 0

    def cpu(self) -> float:
        """Seconds of processor time so far."""
        return cpu_seconds(psutil.Process(self.process.pid))

    async def listen(self) -> None:
        """Hand answers to whoever waits for them."""
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            try:
                message = json.loads(line)
            except ValueError:
                continue  # one of them prints to standard output
            future = self.waiting.pop(message.get("id", -1), None)
            if future is not None and not future.done():
                future.set_result(message)
        for future in self.waiting.values():
            future.cancel()

    async def ask(self, method: str, parameters: dict[str, Any]) -> Any:
        """The result of a request. Raises RuntimeError when it is an error."""
        self.sent += 1
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.waiting[self.sent] = future
        self._write({"jsonrpc": "2.0", "id": self.sent, "method": method, "params": parameters})
        message = await asyncio.wait_for(future, 300)
        if "result" not in message or message["result"].get("isError"):
            raise RuntimeError(f"{self.name}: {json.dumps(message)[:300]}")
        return message["result"]

    async def tool(self, name: str, arguments: dict[str, Any]) -> Any:
        return await self.ask("tools/call", {"name": name, "arguments": arguments})

    def notify(self, method: str) -> None:
        self._write({"jsonrpc": "2.0", "method": method})

    def _write(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message).encode() + b"\n")

    async def query(self, text: str) -> Any:
        """The three nearest rules, or as many as the server gives."""
        if self.name == "chroma":
            arguments = {"collection_name": "rules", "query_texts": [text], "n_results": 3}
            return await self.tool("chroma_query_documents", arguments)
        return await self.tool("qdrant-find", {"query": text})


@asynccontextmanager
async def peer(name: str, home: Path, rulebook: Rulebook) -> AsyncIterator[Peer]:
    """The server on the server's core, holding the rules."""
    more = {
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
        env={**environment(**more), "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"},
        preexec_fn=lambda: keep_to(SERVER_CORE),
    )
    running = Peer(name, process)
    listening = asyncio.create_task(running.listen())
    try:
        hello = {"protocolVersion": "2025-03-26", "capabilities": {}}
        await running.ask("initialize", {**hello, "clientInfo": {"name": "benchmark", "version": "1"}})
        running.notify("notifications/initialized")
        await _fill(running, rulebook)
        yield running
    finally:
        listening.cancel()
        process.terminate()
        await asyncio.wait_for(process.wait(), 30)


async def _fill(running: Peer, rulebook: Rulebook) -> None:
    texts = {id: f"{rule.title}. {rule.applies_when}\n{rule.text}" for id, rule in rulebook.served.items()}
    if running.name == "chroma":
        await running.tool("chroma_create_collection", {"collection_name": "rules"})
        documents = {"documents": list(texts.values()), "ids": list(texts)}
        await running.tool("chroma_add_documents", {"collection_name": "rules", **documents})
    else:
        for id, text in texts.items():
            await running.tool("qdrant-store", {"information": text, "metadata": {"id": id}})


async def load_peer(running: Peer, texts: Sequence[str], at_once: int) -> Load:
    """Ask each text once, `at_once` of them under way."""
    left = iter(texts)
    times: list[float] = []

    async def caller() -> None:
        for text in left:
            began = time.perf_counter()
            await running.query(text)
            times.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(at_once)))
    return Load(time.perf_counter() - began, times)
