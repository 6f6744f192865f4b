"""Many consultations while a rule is edited five times a second: none may fail, none may mix two rulebooks.

Every edit writes its number into one rule's text. A digest stands for one number of each rule, so two answers
that name the same digest and differ in the number of a rule have mixed two rulebooks.

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

from benchmarks.rule_server.service_under_test import guarded
from benchmarks.tools.cpu_pinning import CALLER_CORE, keep_to, server
from benchmarks.tools.http_load import load
from tests.fakes.rules.rulebooks import prose, rule, write_rulebook

EVERY = 0.2
"""Seconds between edits."""
WARES = ("locks", "ladders", "knives", "ropes", "torches", "gloves", "maps", "radios")
MARK = re.compile(r"edition (\d+)")


def edition_of(ware: str, edition: int) -> tuple[str, str]:
    """Path and text of a rule."""
    body = prose(f"Using {ware}, edition {edition}.", "Theft.", "Plainly.")
    return rule(f"tools.{ware}", stance="answer", body=body)


class Seen:
    """What answers said: which editions a digest has of each rule."""

    def __init__(self) -> None:
        self.editions: dict[str, set[int]] = defaultdict(set)
        self.mixed = 0
        self.answers = 0

    def check(self, body: bytes) -> None:
        answer = json.loads(body)
        self.answers += 1
        for found in answer["rules"]:
            known = self.editions[f"{answer['rulebook']['digest']} {found['id']}"]
            known.update(map(int, MARK.findall(found["text"])))
            self.mixed += len(known) != 1


async def edit(folder: Path, done: asyncio.Event) -> int:
    """Edit one rule after another until told to stop; how many times."""
    edition = 0
    while not done.is_set():
        edition += 1
        ware = WARES[edition % len(WARES)]
        path, text = edition_of(ware, edition)
        aside = folder / "tools" / ".aside"
        aside.write_text(text, encoding="utf-8")
        aside.replace(folder / path)
        await asyncio.sleep(EVERY)
    return edition


async def measure(options: argparse.Namespace, folder: Path) -> dict[str, object]:
    """What was asked, edited and seen."""
    rules = folder / "rules"
    write_rulebook(rules, *(edition_of(ware, 0) for ware in WARES))
    service = guarded(folder, options.artefact)
    edited = shutil.copytree(service.artefact, folder / "edited")
    settings = {**service.settings, "ASCL_RULES_WATCH": "true", "ASCL_RULES_ARTEFACT": str(edited)}
    arguments = ["serve", "--rules", str(rules)]
    bodies = [
        json.dumps({"situation": f"{WARES[at % len(WARES)]} number {at}", "top_k": 10}).encode()
        for at in range(options.requests)
    ]
    with server("rule_server.cli", arguments, "/readyz", settings) as to:
        seen, done = Seen(), asyncio.Event()
        editing = asyncio.create_task(edit(rules, done))
        found = await load(f"{to.url}/v1/consult", bodies, 32, service.headers, seen.check)
        done.set()
        edits = await editing
    digests = {key.partition(" ")[0] for key in seen.editions}
    return {
        "consultations": seen.answers,
        "failed": options.requests - seen.answers,
        "mixed": seen.mixed,
        "edits": edits,
        "rulebooks seen": len(digests),
        "per second": round(found.rate, 1),
        "p50 ms": round(1000 * found.percentile(50), 1),
        "p99 ms": round(1000 * found.percentile(99), 1),
    }


def main() -> None:
    """Measure, print, and exit with 1 when a consultation failed or mixed two rulebooks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--artefact", type=Path, help="a built index; left out: one is built")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    keep_to(CALLER_CORE)
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(options, Path(folder)))
    print(json.dumps(found) if options.json else "  ".join(f"{key} {found[key]}" for key in found))
    sys.exit(bool(found["failed"] or found["mixed"] or found["rulebooks seen"] == 1))


if __name__ == "__main__":
    main()
