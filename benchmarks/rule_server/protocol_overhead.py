"""Measures the overhead of a protocol: processor time of a call, relative to a bare route.

Both sides run the same search with a precomputed vector (or none) and return the same constant response; the
rule service adds tokens, rate limit, audit log and metrics. Loads alternate.

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

from benchmarks.rule_server.peer_apps import QUESTION_TEXT
from benchmarks.rule_server.service_under_test import ServiceSetup, prepare_service
from benchmarks.tools.cpu_pinning import CALLER_CORE, ServerProcess, pin_to_core, run_server
from benchmarks.tools.http_load import run_load

CURRENT, LEGACY = "2026-07-28", "2025-11-25"
MAX_RATIOS = {"REST": 1.3, f"MCP {CURRENT}": 3.0, f"MCP {LEGACY}": 3.6}
ACCEPT = {"Accept": "application/json, text/event-stream"}


def tool_call(revision: str) -> tuple[bytes, dict[str, str]]:
    """Returns body and headers of a tool call in a protocol revision."""
    parameters: dict[str, Any] = {"name": "consult_safety_rules", "arguments": {"situation": QUESTION_TEXT}}
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


def _check_response(response: bytes) -> None:
    """Checks that a response is a consultation, because an error response is cheaper."""
    body = json.loads(response)
    consultation = body["result"]["structuredContent"] if "jsonrpc" in body else body
    if len(consultation["rules"]) != 3:
        raise RuntimeError(f"not a consultation: {response[:200]!r}")


async def cpu_per_call(
    server: ServerProcess, path: str, body: bytes, headers: dict[str, str], count: int
) -> float:
    """Returns the seconds of processor time per call."""
    await run_load(server.url + path, [body], 1, headers, _check_response)
    before = server.cpu()
    await run_load(server.url + path, [body] * count, 8, headers)
    return (server.cpu() - before) / count


async def measure(options: argparse.Namespace, service: ServiceSetup, searched: bool) -> list[dict[str, Any]]:
    """Returns a row per side: medians of the milliseconds and of the ratio to the bare route in the same
    round."""
    arguments = ["--searched", str(service.artefact)] if searched else []
    question = json.dumps({"situation": QUESTION_TEXT}).encode()
    with (
        run_server("benchmarks.rule_server.peer_apps", ["bare", *arguments], "/readyz") as bare,
        run_server(
            "benchmarks.rule_server.peer_apps", ["stub", *arguments], "/readyz", service.settings
        ) as stub,
    ):
        sides: dict[str, tuple[ServerProcess, str, bytes, dict[str, str]]] = {
            "bare Starlette route": (bare, "/v1/consult", question, {}),
            "REST": (stub, "/v1/consult", question, service.headers),
        }
        for revision in (CURRENT, LEGACY):
            body, headers = tool_call(revision)
            sides[f"MCP {revision}"] = (stub, "/mcp", body, {**headers, **service.headers})
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(options.rounds):
            for name, side in sides.items():
                seconds[name].append(await cpu_per_call(*side, options.requests))
    base = seconds["bare Starlette route"]
    return [
        {
            "search": searched,
            "side": name,
            "cpu ms": round(1000 * statistics.median(values), 3),
            "ratio": round(statistics.median(a / b for a, b in zip(values, base, strict=True)), 2),
            "bar": MAX_RATIOS.get(name) if searched else None,
        }
        for name, values in seconds.items()
    ]


def main() -> None:
    """Prints the table. Exits with 1 if a ratio exceeds its limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1000, help="calls per load")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--artefact", type=Path, help="a built index; default: build one")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    pin_to_core(CALLER_CORE)
    with tempfile.TemporaryDirectory() as folder:
        service = prepare_service(Path(folder), options.artefact)
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
