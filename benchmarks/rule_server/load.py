"""How much of the encoder's own rate is left when the rule service serves it, and how others compare.

Distinct questions of about 43 tokens, caches off, with tokens, rate limit and audit log; the server has one
core, the callers have the other. Every load of ours stands between two measurements of the encoder alone.

python -m benchmarks.rule_server.load --peers
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.rule_server import mcp_peers
from benchmarks.rule_server.questions import questions
from benchmarks.rule_server.raw_encoder import RawEncoder, raw_encoder
from benchmarks.rule_server.service_under_test import guarded
from benchmarks.tools.cpu_pinning import CALLER_CORE, Server, keep_to, server
from benchmarks.tools.http_load import Load, load
from rule_server.retrieval import TOKENIZER_FILE
from rule_server.retrieval.artefact import Artefact

CONCURRENCY = (1, 8, 32, 64)
BARS = {"rate": 0.90, "cpu": 0.90, "p99/p50": 2.0}


def rest_bodies(texts: Sequence[str]) -> list[bytes]:
    return [json.dumps({"situation": text}).encode() for text in texts]


def row(side: str, at_once: int, found: Load, cpu: float) -> dict[str, Any]:
    """One line of the table; `cpu` in seconds for the whole load."""
    p50, p99 = found.percentile(50), found.percentile(99)
    return {
        "side": side,
        "at once": at_once,
        "per second": round(found.rate, 1),
        "cpu ms": round(1000 * cpu / len(found.times), 2),
        "p50 ms": round(1000 * p50, 1),
        "p99 ms": round(1000 * p99, 1),
        "p99/p50": round(p99 / p50, 2),
    }


class Questions:
    """Texts that nobody has asked before."""

    def __init__(self, texts: list[str]) -> None:
        self._texts = texts
        self._at = 0

    def next(self, count: int) -> list[str]:
        self._at += count
        return self._texts[self._at - count : self._at]


async def measured(
    side: str, to: Server, texts: list[str], at_once: int, headers: dict[str, str]
) -> dict[str, Any]:
    """Load a server's /v1/consult."""
    before = to.cpu()
    found = await load(f"{to.url}/v1/consult", rest_bodies(texts), at_once, headers)
    return row(side, at_once, found, to.cpu() - before)


async def ours(
    to: Server, raw: RawEncoder, asked: Questions, headers: dict[str, str], count: int, rounds: int
) -> list[dict[str, Any]]:
    """Our service at each concurrency, with its ratios to the encoder alone, which is measured around it."""
    rows = []
    await measured("warm", to, asked.next(64), 32, headers)
    for at_once in CONCURRENCY:
        found = []
        for _ in range(rounds):
            texts = asked.next(count if at_once > 1 else count // 4)
            first = raw.measure(texts)
            line = await measured("rule service", to, texts, at_once, headers)
            second = raw.measure(texts)
            rate, cpu = (statistics.mean(pair) for pair in zip(first, second, strict=True))
            line |= {
                "of raw rate": round(line["per second"] / rate, 3),
                "raw cpu/cpu": round(1000 * cpu / line["cpu ms"], 3),
                "raw per second": round(rate, 1),
            }
            found.append(line)
        rows.append(sorted(found, key=lambda line: float(line["of raw rate"]))[len(found) // 2])
    return rows


async def peers(
    name: str, encoder: Path, rulebook: Any, asked: Questions, count: int
) -> list[dict[str, Any]]:
    """Chroma or Qdrant; one line with the reason when it cannot be run."""
    try:
        home = mcp_peers.prepare(name, encoder)
        async with mcp_peers.peer(name, home, rulebook) as running:
            rows = []
            await mcp_peers.load_peer(running, asked.next(8), 1)
            for at_once in (1, 32):
                before = running.cpu()
                found = await mcp_peers.load_peer(running, asked.next(count), at_once)
                rows.append(row(mcp_peers.PINS[name], at_once, found, running.cpu() - before))
            return rows
    except (RuntimeError, OSError, asyncio.CancelledError, TimeoutError) as error:
        return [{"side": mcp_peers.PINS[name], "not run": str(error)[:200] or type(error).__name__}]


async def measure(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """All lines of the table."""
    from tokenizers import Tokenizer

    service = guarded(folder, options.artefact)
    artefact = Artefact(service.artefact)
    current = artefact.current()
    assert current is not None
    encoder = artefact.encoder_folder(current.encoder)
    index = artefact.index(current.rulebook, current.encoder)
    assert index is not None
    tokenizer = Tokenizer.from_file(str(encoder / TOKENIZER_FILE))
    tokenizer.no_padding()
    wanted = options.requests * (len(CONCURRENCY) * options.rounds + 12) + 1000
    asked = Questions(questions(index.rulebook, wanted, lambda text: len(tokenizer.encode(text).ids)))
    few = max(options.requests // 8, 16)
    rows = []
    with raw_encoder(encoder) as raw:
        with server("rule_server.cli", ["serve"], "/readyz", service.settings) as to:
            rows += await ours(to, raw, asked, service.headers, options.requests, options.rounds)
        if options.only_ours:
            return rows
        with server("benchmarks.rule_server.peer_apps", ["bare"], "/readyz") as to:
            for at_once in (1, 32):
                rows.append(
                    await measured("bare Starlette route", to, asked.next(options.requests), at_once, {})
                )
        with server("benchmarks.rule_server.peer_apps", ["naive"], "/readyz") as to:
            for at_once in (1, 32):
                texts = asked.next(few * 4)
                rows.append(await measured("naive sentence-transformers", to, texts, at_once, {}))
    if options.peers:
        for name in mcp_peers.PINS:
            rows += await peers(name, encoder, index.rulebook, asked, few)
    return rows


def main() -> None:
    """Measure, print, and exit with 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=960, help="questions of one load")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--artefact", type=Path, help="a built index; left out: one is built")
    parser.add_argument(
        "--peers", action="store_true", help="Chroma's and Qdrant's servers too (installed under build/)"
    )
    parser.add_argument("--only-ours", action="store_true", help="leave the others out")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    keep_to(CALLER_CORE)
    with tempfile.TemporaryDirectory() as folder:
        rows = asyncio.run(measure(options, Path(folder)))
    for line in rows:
        print(
            json.dumps(line) if options.json else "  ".join(f"{key} {value}" for key, value in line.items())
        )
    [at_32] = [line for line in rows if line["side"] == "rule service" and line["at once"] == 32]
    met = (
        at_32["of raw rate"] >= BARS["rate"]
        and at_32["raw cpu/cpu"] >= BARS["cpu"]
        and at_32["p99/p50"] <= BARS["p99/p50"]
    )
    sys.exit(not met)


if __name__ == "__main__":
    main()
