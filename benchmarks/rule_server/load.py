"""Compares the throughput of the rule service with that of its encoders alone, and with other servers.

Sends distinct questions of about 43 tokens, without caches, with tokens, rate limit and audit log. The server
has one core, the clients have the other. Each load of the rule service runs between two measurements of the
encoders that its questions go through: both, or the multilingual one alone where the first stage turns a
question away or is certain of its rule.

python -m benchmarks.rule_server.load --peers

`--version FOLDER` names a checkout of another version of this project (`git worktree add FOLDER COMMIT`).
The two versions are measured alternately, by the same callers with the same questions.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.rule_server import mcp_peers
from benchmarks.rule_server.questions import (
    generate_plain_questions,
    generate_questions,
    generate_questions_about_one_rule,
)
from benchmarks.rule_server.raw_encoder import RawEncoder, raw_encoder
from benchmarks.rule_server.service_under_test import ServiceSetup, prepare_other_version, prepare_service
from benchmarks.tools.cpu_pinning import CALLER_CORE, ServerProcess, pin_to_core, run_server
from benchmarks.tools.http_load import LoadResult, run_load
from rule_server.retrieval import TOKENIZER_FILE
from rule_server.retrieval.artefact import Artefact

if TYPE_CHECKING:
    from rule_server.retrieval.index import RuleIndex

CONCURRENCY = (1, 8, 32, 64)
RULES, ONE_RULE, PLAIN = "about several rules", "about one rule", "plain"
"""Kinds of questions: about several rules, one rule, or none."""
FASTER = {RULES: 1.7, ONE_RULE: 1.7, PLAIN: 2.2}
"""Minimum ratio of questions per second to version 0.1.0."""
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
    questions: dict[str, QuestionQueue],
    headers: dict[str, str],
    options: argparse.Namespace,
) -> list[dict[str, Any]]:
    """Measures the rule service at each concurrency, with its ratios to the encoders alone.

    The encoders are measured before and after each load. Reports the median round. Questions about one rule
    and plain ones are sent by 32 callers only.
    """
    rows = []
    await measure_server("warm-up", server, questions[RULES].next(64), 32, headers)
    loads = [(RULES, at_once) for at_once in options.concurrency or CONCURRENCY]
    for kind, at_once in [*loads, (ONE_RULE, 32), (PLAIN, 32)]:
        lines = []
        for _ in range(options.rounds):
            texts = questions[kind].next(options.requests if at_once > 1 else options.requests // 4)
            first = raw.measure(texts)
            line = await measure_server("rule service", server, texts, at_once, headers)
            second = raw.measure(texts)
            rate, cpu = (statistics.mean(pair) for pair in zip(first, second, strict=True))
            line |= {
                "questions": kind,
                "of raw rate": round(line["per second"] / rate, 3),
                "raw cpu/cpu": round(1000 * cpu / line["cpu ms"], 3),
                "raw per second": round(rate, 1),
            }
            lines.append(line)
        rows.append(sorted(lines, key=lambda line: float(line["of raw rate"]))[len(lines) // 2])
    return rows


async def measure_versions(
    service: ServiceSetup,
    other: ServiceSetup,
    questions: dict[str, QuestionQueue],
    options: argparse.Namespace,
) -> list[dict[str, Any]]:
    """Measures both versions alternately, with 32 callers and the same questions. Reports the median
    round."""
    rows = []
    with (
        run_server("rule_server.cli", ["serve"], "/readyz", service.settings) as ours,
        run_server("rule_server.cli", ["serve"], "/readyz", other.settings, options.version) as theirs,
    ):
        for kind in FASTER:
            lines = []
            for at in range(options.rounds + 1):
                texts = questions[kind].next(options.requests if at else 64)
                after = await measure_server("this version", ours, texts, 32, service.headers)
                before = await measure_server(options.version.name, theirs, texts, 32, other.headers)
                if at:  # the first round warms up
                    lines.append((after["per second"] / before["per second"], before, after))
            ratio, before, after = sorted(lines, key=lambda line: line[0])[len(lines) // 2]
            cpu = before["cpu ms"] / after["cpu ms"]
            ratios = {"times as fast": round(ratio, 2), "cpu ratio": round(cpu, 2)}
            rows += [{**before, "questions": kind}, {**after, "questions": kind, **ratios}]
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


def make_questions(
    artefact: Artefact, index: RuleIndex, options: argparse.Namespace
) -> dict[str, QuestionQueue]:
    """Returns enough questions of each kind for all loads."""
    from tokenizers import Tokenizer

    encoder = artefact.encoder(index.fingerprint, threads=1)
    tokenizer = Tokenizer.from_file(str(artefact.encoder_folder(index.fingerprint) / TOKENIZER_FILE))
    tokenizer.no_padding()

    def length(text: str) -> int:
        return len(tokenizer.encode(text).ids)

    loads = len(options.concurrency or CONCURRENCY)
    count = options.requests * (loads * options.rounds + options.rounds + 6) + 300
    others = options.requests * 2 * options.rounds + 64
    return {
        RULES: QuestionQueue(generate_questions(index.rulebook, count, length)),
        ONE_RULE: QuestionQueue(generate_questions_about_one_rule(index.rulebook, others, length)),
        PLAIN: QuestionQueue(generate_plain_questions(index, encoder, others, length)),
    }


async def measure(options: argparse.Namespace, folder: Path) -> AsyncIterator[dict[str, Any]]:
    """Yields all rows of the table, each group when it is measured."""
    service = prepare_service(folder, options.artefact)
    artefact = Artefact(service.artefact)
    current = artefact.current()
    assert current is not None
    index = artefact.index(current.rulebook, current.encoder)
    assert index is not None
    questions = make_questions(artefact, index, options)
    peer_requests = max(options.requests // 8, 16)
    with (
        raw_encoder(service.artefact) as raw,
        run_server("rule_server.cli", ["serve"], "/readyz", service.settings) as server,
    ):
        for line in await measure_rule_service(server, raw, questions, service.headers, options):
            yield line
    if options.version:
        other = prepare_other_version(folder, options.version, service)
        for line in await measure_versions(service, other, questions, options):
            yield line
    if options.only_ours:
        return
    with run_server("benchmarks.rule_server.peer_apps", ["bare"], "/readyz") as server:
        for at_once in (1, 32):
            texts = questions[RULES].next(options.requests)
            yield await measure_server("bare Starlette route", server, texts, at_once, {})
    with run_server("benchmarks.rule_server.peer_apps", ["naive"], "/readyz") as server:
        for at_once in (1, 32):
            texts = questions[RULES].next(peer_requests * 4)
            yield await measure_server("naive sentence-transformers", server, texts, at_once, {})
    if options.peers:
        for name in mcp_peers.REQUIREMENTS:
            encoder = artefact.encoder_folder(current.encoder)
            for line in await measure_peer(name, encoder, index.rulebook, questions[RULES], peer_requests):
                yield line


async def print_rows(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Prints each row of the table as soon as it is measured. Returns all of them."""
    rows = []
    async for line in measure(options, folder):
        text = json.dumps(line) if options.json else "  ".join(f"{key} {line[key]}" for key in line)
        print(text, flush=True)
        rows.append(line)
    return rows


def main() -> None:
    """Prints the table. Exits with 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=960, help="questions per load")
    parser.add_argument(
        "--concurrency", type=int, action="append", help="callers of questions that find rules (repeatable)"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--artefact", type=Path, help="a built index; default: build one")
    parser.add_argument(
        "--peers",
        action="store_true",
        help="also measure Chroma's and Qdrant's servers (installed under build/)",
    )
    parser.add_argument("--version", type=Path, help="a checkout of another version to measure in turn")
    parser.add_argument("--only-ours", action="store_true", help="measure the rule service only")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    pin_to_core(CALLER_CORE)
    with tempfile.TemporaryDirectory() as folder:
        rows = asyncio.run(print_rows(options, Path(folder)))
    [at_32] = [
        line
        for line in rows
        if line["side"] == "rule service" and line["at once"] == 32 and line["questions"] == RULES
    ]
    met = (
        at_32["of raw rate"] >= TARGETS["rate"]
        and at_32["raw cpu/cpu"] >= TARGETS["cpu"]
        and at_32["p99/p50"] <= TARGETS["p99/p50"]
    )
    for line in rows:
        met = met and line.get("times as fast", math.inf) >= FASTER.get(line.get("questions", ""), 0)
    sys.exit(not met)


if __name__ == "__main__":
    main()
