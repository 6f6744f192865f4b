"""Measures the time from process start to the first consultation, memory, and whether torch was loaded.

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

from benchmarks.rule_server.service_under_test import prepare_service
from benchmarks.tools.cpu_pinning import ServerProcess, run_server
from benchmarks.tools.http_load import run_load
from rule_server.retrieval.artefact import Artefact
from rule_server.retrieval.index import RuleIndex
from rule_server.rulebook import Rule, Rulebook

LIMITS = {"seconds": 2.0, "MiB": 600.0}
"""The memory limit is 8 % above the 555 MiB measured with 1000 rules and both encoders."""
RULES = 1000
QUESTION = json.dumps({"situation": "a user asks how to kill a stuck Linux process"}).encode()


def save_large_rulebook(artefact: Artefact, count: int) -> None:
    """Saves a rulebook of `count` rules: the packaged rules copied under new ids, with the same vectors."""
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
    rulebook = Rulebook(name="thousand", version="1.0.0", categories=index.rulebook.categories, rules=rules)
    encoder = artefact.encoder(current.encoder, 1)
    artefact.save(RuleIndex.build(rulebook, encoder, index.vectors_by_text()), own_rules=False)


async def consult(server: ServerProcess, headers: dict[str, str]) -> None:
    await run_load(f"{server.url}/v1/consult", [QUESTION], 1, headers)


def loaded_libraries(server: ServerProcess) -> list[str]:
    """Returns the heavy libraries that the process has loaded."""
    maps = Path(f"/proc/{server.pid}/maps").read_text(encoding="utf-8")
    return [name for name in ("torch", "transformers", "onnxruntime", "faiss") if f"/{name}/" in maps]


def measure(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Measures the service with the packaged rules and with a thousand rules. Returns a row for each."""
    service = prepare_service(folder, None)
    rows = []
    for rules in (None, RULES):
        if rules is not None:
            save_large_rulebook(Artefact(service.artefact), rules)
        seconds, memory, libraries = [], [], []
        for _ in range(options.starts):
            start = time.perf_counter()
            with run_server("rule_server.cli", ["serve"], "/readyz", service.settings) as server:
                asyncio.run(consult(server, service.headers))
                seconds.append(time.perf_counter() - start)
                asyncio.run(run_load(f"{server.url}/v1/consult", [QUESTION] * 200, 8, service.headers))
                memory.append(server.resident() / 2**20)
                libraries = loaded_libraries(server)
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
    """Prints the table. Exits with 1 if a limit is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(options, Path(folder))
    for line in rows:
        print(json.dumps(line) if options.json else "  ".join(f"{key} {line[key]}" for key in line))
    met = all(
        line["first answer s"] <= LIMITS["seconds"]
        and line["resident MiB"] < LIMITS["MiB"]
        and "torch" not in line["libraries"]
        for line in rows
    )
    sys.exit(not met)


if __name__ == "__main__":
    main()
