"""Compares the throughput of the rule service with that of its encoder alone, and with other servers.

Sends distinct questions of about 43 tokens, without caches, with tokens, rate limit and audit log. The server
has one core, the clients have the other. Each load of the rule service runs between two measurements of the
encoder.

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
from benchmarks.rule_server.questions import generate_questions
from benchmarks.rule_server.raw_encoder import RawEncoder, raw_encoder
from benchmarks.rule_server.service_under_test import prepare_service
from benchmarks.tools.cpu_pinning import CALLER_CORE, ServerProcess, pin_to_core, run_server
from benchmarks.tools.http_load import LoadResult, run_load
from rule_server.retrieval import TOKENIZER_FILE
from rule_server.retrieval.artefact import Artefact

CONCURRENCY = (1, 8, 32, 64)
TARGETS = {"rate": 0.90, "cpu": 0.90, "p99/p50": 2.0}


def rest_bodies(texts: Sequence[str]) -> list[bytes]:
    return [json.dumps({"situation": text}).encode() for text in texts]


def table_row(side: str, at_once: int, result: LoadResult, cpu: float) -> dict[str, Any]:
    """Returns a row of the table. `cpu` is in seconds for the whole load."""
    p50, p99 = result.percentile(50), result.percentile(99)
    return {
        "side": side,
        "at once": at_once,
        "per second": round(result.rate, 1),
        "cpu ms": round(1000 * cpu / len(result.times), 2),
        "p50 ms": round(1000 * p50, 1),
        "p99 ms": round(1000 * p99, 1),
        "p99/p50": round(p99 / p50, 2),
    }


class QuestionQueue:
    """Questions that are used only once."""

    def __init__(self, texts: list[str]) -> None:
        self._texts = texts
        self._position = 0

    def next(self, count: int) -> list[str]:
        self._position += count
        return self._texts[self._position - count : self._position]


async def measure_server(
    side: str, server: ServerProcess, texts: list[str], at_once: int, headers: dict[str, str]
) -> dict[str, Any]:
    """Runs a load on a server's /v1/consult. Returns its table row."""
    before = server.cpu()
    result = await run_load(f"{server.url}/v1/consult", rest_bodies(texts), at_once, headers)
    return table_row(side, at_once, result, server.cpu() - before)


async def measure_rule_service(
    server: ServerProcess,
    raw: RawEncoder,
    questions: QuestionQueue,
    headers: dict[str, str],
    count: int,
    rounds: int,
) -> list[dict[str, Any]]:
    """Measures the rule service at each concurrency, with its ratios to the encoder alone.

    The encoder is measured before and after each load. Reports the median round.
    """
    rows = []
    await measure_server("warm-up", server, questions.next(64), 32, headers)
    for at_once in CONCURRENCY:
        lines = []
        for _ in range(rounds):
            texts = questions.next(count if at_once > 1 else count // 4)
            first = raw.measure(texts)
            line = await measure_server("rule service", server, texts, at_once, headers)
            second = raw.measure(texts)
            rate, cpu = (statistics.mean(pair) for pair in zip(first, second, strict=True))
            line |= {
                "of raw rate": round(line["per second"] / rate, 3),
                "raw cpu/cpu": round(1000 * cpu / line["cpu ms"], 3),
                "raw per second": round(rate, 1),
            }
            lines.append(line)
        rows.append(sorted(lines, key=lambda line: float(line["of raw rate"]))[len(lines) // 2])
    return rows


async def measure_peer(
    name: str, encoder: Path, rulebook: Any, questions: QuestionQueue, count: int
) -> list[dict[str, Any]]:
    """Measures Chroma or Qdrant. Returns one row with the reason if it cannot run."""
    try:
        home = mcp_peers.install_peer(name, encoder)
        async with mcp_peers.run_peer(name, home, rulebook) as peer:
            rows = []
            await mcp_peers.load_peer(peer, questions.next(8), 1)
            for at_once in (1, 32):
                before = peer.cpu()
                result = await mcp_peers.load_peer(peer, questions.next(count), at_once)
                rows.append(table_row(mcp_peers.REQUIREMENTS[name], at_once, result, peer.cpu() - before))
            return rows
    except (RuntimeError, OSError, asyncio.CancelledError, TimeoutError) as error:
        return [{"side": mcp_peers.REQUIREMENTS[name], "not run": str(error)[:200] or type(error).__name__}]


async def measure(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Returns all rows of the table."""
    from tokenizers import Tokenizer

    service = prepare_service(folder, options.artefact)
    artefact = Artefact(service.artefact)
    current = artefact.current()
    assert current is not None
    encoder = artefact.encoder_folder(current.encoder)
    index = artefact.index(current.rulebook, current.encoder)
    assert index is not None
    tokenizer = Tokenizer.from_file(str(encoder / TOKENIZER_FILE))
    tokenizer.no_padding()
    count = options.requests * (len(CONCURRENCY) * options.rounds + 12) + 1000
    questions = QuestionQueue(
        generate_questions(index.rulebook, count, lambda text: len(tokenizer.encode(text).ids))
    )
    peer_requests = max(options.requests // 8, 16)
    rows = []
    with raw_encoder(encoder) as raw:
        with run_server("rule_server.cli", ["serve"], "/readyz", service.settings) as server:
            rows += await measure_rule_service(
                server, raw, questions, service.headers, options.requests, options.rounds
            )
        if options.only_ours:
            return rows
        with run_server("benchmarks.rule_server.peer_apps", ["bare"], "/readyz") as server:
            for at_once in (1, 32):
                rows.append(
                    await measure_server(
                        "bare Starlette route", server, questions.next(options.requests), at_once, {}
                    )
                )
        with run_server("benchmarks.rule_server.peer_apps", ["naive"], "/readyz") as server:
            for at_once in (1, 32):
                texts = questions.next(peer_requests * 4)
                rows.append(await measure_server("naive sentence-transformers", server, texts, at_once, {}))
    if options.peers:
        for name in mcp_peers.REQUIREMENTS:
            rows += await measure_peer(name, encoder, index.rulebook, questions, peer_requests)
    return rows


def main() -> None:
    """Prints the table. Exits with 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=960, help="questions per load")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--artefact", type=Path, help="a built index; default: build one")
    parser.add_argument(
        "--peers",
        action="store_true",
        help="also measure Chroma's and Qdrant's servers (installed under build/)",
    )
    parser.add_argument("--only-ours", action="store_true", help="measure the rule service only")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    pin_to_core(CALLER_CORE)
    with tempfile.TemporaryDirectory() as folder:
        rows = asyncio.run(measure(options, Path(folder)))
    for line in rows:
        print(
            json.dumps(line) if options.json else "  ".join(f"{key} {value}" for key, value in line.items())
        )
    [at_32] = [line for line in rows if line["side"] == "rule service" and line["at once"] == 32]
    met = (
        at_32["of raw rate"] >= TARGETS["rate"]
        and at_32["raw cpu/cpu"] >= TARGETS["cpu"]
        and at_32["p99/p50"] <= TARGETS["p99/p50"]
    )
    sys.exit(not met)


if __name__ == "__main__":
    main()
