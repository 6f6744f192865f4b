"""What a protocol costs: processor time of a call over that of a bare route.

Both sides make the same search of our own index, for a question whose vector is known (or none), and answer
the same constant; ours with tokens, rate limit, audit log and metrics. Loads take turns.

python -m benchmarks.rule_server.protocol_overhead
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.rule_server.peer_apps import TEXT
from benchmarks.rule_server.service_under_test import Guarded, guarded
from benchmarks.tools.cpu_pinning import CALLER_CORE, Server, keep_to, server
from benchmarks.tools.http_load import load

CURRENT, LEGACY = "2026-07-28", "2025-11-25"
BARS = {"REST": 1.3, f"MCP {CURRENT}": 3.0, f"MCP {LEGACY}": 3.6}
ACCEPT = {"Accept": "application/json, text/event-stream"}


def call(revision: str) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a tool call in a revision of the protocol."""
    parameters: dict[str, Any] = {"name": "consult_safety_rules", "arguments": {"situation": TEXT}}
    headers = {**ACCEPT, "MCP-Protocol-Version": revision}
    if revision == CURRENT:
        parameters["_meta"] = {
            "io.modelcontextprotocol/protocolVersion": revision,
            "io.modelcontextprotocol/clientInfo": {"name": "benchmark", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        headers |= {"Mcp-Method": "tools/call", "Mcp-Name": "consult_safety_rules"}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": parameters}
    return json.dumps(message).encode(), headers


def _whole(answer: bytes) -> None:
    """A refusal costs less than an answer: it must not be counted as one."""
    body = json.loads(answer)
    found = body["result"]["structuredContent"] if "jsonrpc" in body else body
    if len(found["rules"]) != 3:
        raise RuntimeError(f"no consultation: {answer[:200]!r}")


async def cpu_of(to: Server, path: str, body: bytes, headers: dict[str, str], count: int) -> float:
    """Seconds of processor time of one call."""
    await load(to.url + path, [body], 1, headers, _whole)
    before = to.cpu()
    await load(to.url + path, [body] * count, 8, headers)
    return (to.cpu() - before) / count


async def measure(options: argparse.Namespace, service: Guarded, searched: bool) -> list[dict[str, Any]]:
    """A line a side: medians of milliseconds and of the ratio to the bare route of the same round."""
    size = ["--searched", str(service.artefact)] if searched else []
    question = json.dumps({"situation": TEXT}).encode()
    with (
        server("benchmarks.rule_server.peer_apps", ["bare", *size], "/readyz") as bare,
        server("benchmarks.rule_server.peer_apps", ["stub", *size], "/readyz", service.settings) as ours,
    ):
        sides: dict[str, tuple[Server, str, bytes, dict[str, str]]] = {
            "bare Starlette route": (bare, "/v1/consult", question, {}),
            "REST": (ours, "/v1/consult", question, service.headers),
        }
        for revision in (CURRENT, LEGACY):
            body, headers = call(revision)
            sides[f"MCP {revision}"] = (ours, "/mcp", body, {**headers, **service.headers})
        found: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(options.rounds):
            for name, side in sides.items():
                found[name].append(await cpu_of(*side, options.requests))
    base = found["bare Starlette route"]
    return [
        {
            "search": searched,
            "side": name,
            "cpu ms": round(1000 * statistics.median(values), 3),
            "ratio": round(statistics.median(a / b for a, b in zip(values, base, strict=True)), 2),
            "bar": BARS.get(name) if searched else None,
        }
        for name, values in found.items()
    ]


def main() -> None:
    """Measure, print, and exit with 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1000, help="calls of one load")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--artefact", type=Path, help="a built index; left out: one is built")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    keep_to(CALLER_CORE)
    with tempfile.TemporaryDirectory() as folder:
        service = guarded(Path(folder), options.artefact)
        rows = [
            line for searched in (True, False) for line in asyncio.run(measure(options, service, searched))
        ]
    for line in rows:
        print(
            json.dumps(line) if options.json else "  ".join(f"{key} {value}" for key, value in line.items())
        )
    sys.exit(any(line["bar"] is not None and line["ratio"] > line["bar"] for line in rows))


if __name__ == "__main__":
    main()
