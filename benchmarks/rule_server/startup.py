"""How soon a new process answers its first consultation, what it holds in memory, and whether torch came in.

python -m benchmarks.rule_server.startup
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.rule_server.service_under_test import guarded
from benchmarks.tools.cpu_pinning import Server, server
from benchmarks.tools.http_load import load
from rule_server.retrieval.artefact import Artefact
from rule_server.retrieval.index import RuleIndex
from rule_server.rulebook import Rule, Rulebook

BARS = {"seconds": 2.0, "MiB": 350.0}
RULES = 1000
QUESTION = json.dumps({"situation": "a user asks how to kill a stuck Linux process"}).encode()


def enlarge(artefact: Artefact, count: int) -> None:
    """Make current a rulebook of `count` rules: ours, again under other ids, with the vectors they have."""
    current = artefact.current()
    assert current is not None
    index = artefact.index(current.rulebook, current.encoder)
    assert index is not None
    served = list(index.rulebook.served.values())
    copies = -(-count // len(served))
    rules: list[Rule] = [
        rule.model_copy(update={"id": f"{rule.id}-copy-{copy}"} if copy else {})
        for copy in range(copies)
        for rule in served
    ][:count]
    rules.sort(key=lambda rule: rule.id)
    book = Rulebook(name="thousand", version="1.0.0", categories=index.rulebook.categories, rules=rules)
    encoder = artefact.encoder(current.encoder, 1)
    artefact.save(RuleIndex.build(book, encoder, index.vectors_by_text()), own_rules=False)


async def ask(to: Server, headers: dict[str, str]) -> None:
    await load(f"{to.url}/v1/consult", [QUESTION], 1, headers)


def imported(to: Server) -> list[str]:
    """Which heavy libraries the process has mapped."""
    maps = Path(f"/proc/{to.pid}/maps").read_text(encoding="utf-8")
    return [name for name in ("torch", "transformers", "onnxruntime", "faiss") if f"/{name}/" in maps]


def measure(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """A line for our own rules and one for a thousand."""
    service = guarded(folder, None)
    rows = []
    for rules in (None, RULES):
        if rules is not None:
            enlarge(Artefact(service.artefact), rules)
        seconds, memory, libraries = [], [], []
        for _ in range(options.starts):
            began = time.perf_counter()
            with server("rule_server.cli", ["serve"], "/readyz", service.settings) as to:
                asyncio.run(ask(to, service.headers))
                seconds.append(time.perf_counter() - began)
                asyncio.run(load(f"{to.url}/v1/consult", [QUESTION] * 200, 8, service.headers))
                memory.append(to.resident() / 2**20)
                libraries = imported(to)
        rows.append(
            {
                "rules": rules or "ours",
                "first answer s": round(statistics.median(seconds), 2),
                "resident MiB": round(max(memory)),
                "libraries": libraries,
            }
        )
    return rows


def main() -> None:
    """Measure, print, and exit with 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(options, Path(folder))
    for line in rows:
        print(json.dumps(line) if options.json else "  ".join(f"{key} {line[key]}" for key in line))
    met = all(
        line["first answer s"] <= BARS["seconds"]
        and line["resident MiB"] < BARS["MiB"]
        and "torch" not in line["libraries"]
        for line in rows
    )
    sys.exit(not met)


if __name__ == "__main__":
    main()
