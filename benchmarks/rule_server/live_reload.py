"""Sends consultations while rules are edited five times per second. None may fail or mix two rulebooks.

Every edit writes its number into one rule's text. A digest identifies one number of each rule, so two
responses with the same digest but different numbers of a rule have mixed two rulebooks.

python -m benchmarks.rule_server.live_reload
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import shutil
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from benchmarks.rule_server.service_under_test import prepare_service
from benchmarks.tools.cpu_pinning import CALLER_CORE, pin_to_core, run_server
from benchmarks.tools.http_load import run_load
from tests.fakes.rules.rulebooks import prose, rule, write_rulebook

EDIT_INTERVAL = 0.2
"""Seconds between edits."""
ITEMS = ("locks", "ladders", "knives", "ropes", "torches", "gloves", "maps", "radios")
EDITION = re.compile(r"edition (\d+)")


def rule_edition(item: str, edition: int) -> tuple[str, str]:
    """Returns path and text of a rule."""
    body = prose(f"Using {item}, edition {edition}.", "Theft.", "Plainly.")
    return rule(f"tools.{item}", stance="answer", body=body)


class ConsistencyChecker:
    """Collects the editions of each rule by digest, and counts responses that mix rulebooks."""

    def __init__(self) -> None:
        self.editions: dict[str, set[int]] = defaultdict(set)
        self.mixed = 0
        self.responses = 0

    def check(self, body: bytes) -> None:
        response = json.loads(body)
        self.responses += 1
        for entry in response["rules"]:
            editions = self.editions[f"{response['rulebook']['digest']} {entry['id']}"]
            editions.update(map(int, EDITION.findall(entry["text"])))
            self.mixed += len(editions) != 1


async def edit_rules(folder: Path, stop: asyncio.Event) -> int:
    """Edits one rule after another until `stop` is set. Returns the number of edits."""
    edition = 0
    while not stop.is_set():
        edition += 1
        item = ITEMS[edition % len(ITEMS)]
        path, text = rule_edition(item, edition)
        partial = folder / "tools" / ".partial"
        partial.write_text(text, encoding="utf-8")
        partial.replace(folder / path)
        await asyncio.sleep(EDIT_INTERVAL)
    return edition


async def measure(options: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Runs the benchmark. Returns counts and latencies."""
    rules = folder / "rules"
    write_rulebook(rules, *(rule_edition(item, 0) for item in ITEMS))
    service = prepare_service(folder, options.artefact)
    edited = shutil.copytree(service.artefact, folder / "edited")
    settings = {**service.settings, "ASCL_RULES_WATCH": "true", "ASCL_RULES_ARTEFACT": str(edited)}
    arguments = ["serve", "--rules", str(rules)]
    bodies = [
        json.dumps({"situation": f"{ITEMS[index % len(ITEMS)]} number {index}", "top_k": 10}).encode()
        for index in range(options.requests)
    ]
    with run_server("rule_server.cli", arguments, "/readyz", settings) as service_process:
        checker, stop = ConsistencyChecker(), asyncio.Event()
        editing = asyncio.create_task(edit_rules(rules, stop))
        result = await run_load(
            f"{service_process.url}/v1/consult", bodies, 32, service.headers, checker.check
        )
        stop.set()
        edits = await editing
    digests = {key.partition(" ")[0] for key in checker.editions}
    return {
        "consultations": checker.responses,
        "failed": options.requests - checker.responses,
        "mixed": checker.mixed,
        "edits": edits,
        "rulebooks seen": len(digests),
        "per second": round(result.rate, 1),
        "p50 ms": round(1000 * result.percentile(50), 1),
        "p99 ms": round(1000 * result.percentile(99), 1),
    }


def main() -> None:
    """Prints the result. Exits with 1 if a consultation failed or mixed two rulebooks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--artefact", type=Path, help="a built index; default: build one")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    pin_to_core(CALLER_CORE)
    with tempfile.TemporaryDirectory() as folder:
        result = asyncio.run(measure(options, Path(folder)))
    print(json.dumps(result) if options.json else "  ".join(f"{key} {result[key]}" for key in result))
    sys.exit(bool(result["failed"] or result["mixed"] or result["rulebooks seen"] == 1))


if __name__ == "__main__":
    main()
