"""How well the rulebook answers labelled prompts: the right category, its `answer` rule, and nothing when
nothing applies.

    python -m benchmarks.retrieval.quality --data DATA --map DATA/label_map.json [--rules rules] [--json]

DATA holds JSON Lines files, one a source, with `id`, `source`, `prompt`, `kind` and `category`. The map
gives for a source and a label the categories of the rulebook that count as right (null: the label implies
none; `*`: any label). Every prompt goes through the rule service itself: its windows, search and threshold.

Hits are counted on the three rules that a consultation returns. At the threshold an answer without rules is a
miss, since that is what a user gets; `without threshold` shows what the ranking alone can do.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.retrieval.cached_encoder import CachedEncoder
from rule_server.authoring import wilson
from rule_server.errors import RuleServiceError
from rule_server.retrieval.build import LoadedIndex, load_or_build
from rule_server.schemas import LONGEST, ConsultRequest, ConsultResponse
from rule_server.service.rule_service import RuleService
from rule_server.settings import load_settings

TOP_K = 3
SKIPPED = ("xstest_responses",)  # answers to prompts of another source
LOOKALIKES = "benign-lookalikes"
ALWAYS = -2.0  # a threshold that every rule reaches

Row = dict[str, Any]
Map = dict[str, dict[str, list[str] | None]]


@dataclass(frozen=True)
class Asked:
    """A prompt, what it was answered at the threshold, and without one."""

    row: Row
    answer: ConsultResponse
    unlimited: ConsultResponse


def read_rows(folder: Path) -> list[Row]:
    """The prompts of every source in a folder.

    Raises:
        ValueError: one sentence that names the file and line.
    """
    rows: list[Row] = []
    for file in sorted(folder.glob("*.jsonl")):
        if file.stem in SKIPPED:
            continue
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            try:
                row = json.loads(line)
                rows.append({"source": file.stem, "category": None, "kind": None, **row})
                if not isinstance(row["prompt"], str):
                    raise TypeError
            except (ValueError, TypeError, KeyError):
                raise ValueError(f"{file.name} line {number} is no JSON object with a `prompt`") from None
    if not rows:
        raise ValueError(f"{folder} holds no prompts: name a folder with *.jsonl files by --data")
    return rows


def acceptable(row: Row, labels: Map) -> frozenset[str] | None:
    """Categories that count as right for a prompt; None when its label implies none or it has no label."""
    known = labels.get(row["source"])
    if known is None:
        return None
    label = row["category"]
    if "*" in known:
        return frozenset(known["*"] or ()) or None
    if label is None:
        return None
    parts = [label] if label in known else [part.strip() for part in str(label).split("|")]
    right = frozenset(category for part in parts for category in known.get(part) or ())
    return right or None


def rate(flags: Iterable[bool]) -> dict[str, float | int]:
    """A share with its interval and the number of prompts."""
    seen = list(flags)
    share, low, high = wilson(sum(seen), len(seen))
    return {"share": round(share, 4), "low": round(low, 4), "high": round(high, 4), "n": len(seen)}


def hit(answer: ConsultResponse, right: frozenset[str], depth: int) -> bool:
    return any(rule.category in right for rule in answer.rules[:depth])


def carries_answer(answer: ConsultResponse) -> bool:
    """Whether an `answer` rule of its first rule's category is among the rules."""
    top = answer.rules[0].category
    return any(rule.category == top and rule.stance == "answer" for rule in answer.rules)


def fits_benign(answer: ConsultResponse) -> bool:
    """No rule, or one that says what is fine: a look-alike, or an `answer` rule of the top category."""
    return (
        not answer.rules
        or any(rule.category == LOOKALIKES for rule in answer.rules)
        or carries_answer(answer)
    )


def strictly_fits_benign(answer: ConsultResponse, right: frozenset[str] | None) -> bool:
    """No rule, or an `answer` rule of a category that the prompt's label names."""
    wanted = (right or frozenset()) | {LOOKALIKES}
    return not answer.rules or any(
        rule.category in wanted and rule.stance == "answer" for rule in answer.rules
    )


async def ask_all(service: RuleService, everything: RuleService, rows: Sequence[Row]) -> list[Asked]:
    asked = []
    async with service.running(), everything.running():
        await service.warm()
        await everything.warm()
        for row in track(rows, "asking", console=Console(stderr=True), transient=True):
            # Of a prompt that is longer than a consultation may be, the beginning is asked.
            request = ConsultRequest(situation=row["prompt"][:LONGEST] or " ", top_k=TOP_K)
            asked.append(Asked(row, await service.consult(request), await everything.consult(request)))
    return asked


def measure(asked: Sequence[Asked], labels: Map) -> dict[str, Any]:
    """All figures, per source and kind, as plain data."""
    hits: dict[str, Any] = {}
    for source, group in grouped(asked, "source"):
        labelled = [(one, right) for one in group if (right := acceptable(one.row, labels)) is not None]
        if not labelled:
            continue
        hits[source] = {
            f"hit@{depth}{suffix}": rate(
                hit(one.answer if not suffix else one.unlimited, right, depth) for one, right in labelled
            )
            for suffix in ("", " without threshold")
            for depth in (1, 3)
        }
    averages = {
        name: round(sum(figures[name]["share"] for figures in hits.values()) / len(hits), 4)
        for name in (next(iter(hits.values())) if hits else ())
    }
    with_rules = [one.answer for one in asked if one.answer.rules]
    nothing = {
        kind: {
            "all": rate(not one.answer.rules for one in group),
            "sources": {
                source: rate(not one.answer.rules for one in part)
                for source, part in grouped(group, "source")
            },
        }
        for kind, group in grouped(asked, "kind")
    }
    benign = [one for one in asked if one.row["source"] == "xstest" and one.row["kind"] == "benign_sensitive"]
    return {
        "hits": hits,
        "averages over sources": averages,
        "answers with an answer rule of the top category": rate(map(carries_answer, with_rules)),
        "no_applicable_rule": nothing,
        "xstest benign": {
            "fitting answer or benign-lookalikes rule, or none": rate(
                fits_benign(one.answer) for one in benign
            ),
            "strict: answer rule of a labelled category, or none": rate(
                strictly_fits_benign(one.answer, acceptable(one.row, labels)) for one in benign
            ),
            "no_applicable_rule": rate(not one.answer.rules for one in benign),
        },
        "confusions": confusions(asked, labels),
    }


def confusions(asked: Sequence[Asked], labels: Map) -> list[dict[str, Any]]:
    """What came first instead of what the label names, most frequent first, for whoever writes the rules."""
    seen: dict[tuple[str, str, str], list[int]] = defaultdict(lambda: [0, 0])
    for one in asked:
        right = acceptable(one.row, labels)
        if right is None or hit(one.answer, right, 1):
            continue
        first = one.answer.rules[0].id if one.answer.rules else "no_applicable_rule"
        count = seen[one.row["source"], " | ".join(sorted(right)), first]
        count[0] += 1
        count[1] += not hit(one.answer, right, TOP_K)
    ranked = sorted(seen.items(), key=lambda item: (-item[1][1], -item[1][0]))
    return [
        {"source": source, "right": right, "first": first, "missed@1": count[0], "missed@3": count[1]}
        for (source, right, first), count in ranked
    ]


def grouped(asked: Sequence[Asked], key: str) -> list[tuple[str, list[Asked]]]:
    groups: dict[str, list[Asked]] = defaultdict(list)
    for one in asked:
        groups[str(one.row[key])].append(one)
    return sorted(groups.items())


def show(figures: dict[str, Any], console: Console, *, top: int) -> None:
    def text(value: dict[str, Any]) -> str:
        return f"{value['share']:.3f} [{value['low']:.2f}, {value['high']:.2f}]" if value["n"] else "-"

    book = figures["rulebook"]
    console.print(f"{book['name']} {book['version']} {book['digest'][:12]}, threshold {figures['threshold']}")
    table = Table("source", "n", "hit@1", "hit@3", "hit@1 without threshold", "hit@3 without threshold")
    for source, values in figures["hits"].items():
        table.add_row(source, str(values["hit@1"]["n"]), *(text(value) for value in values.values()))
    table.add_row("average", "", *(f"{value:.3f}" for value in figures["averages over sources"].values()))
    console.print(table)
    table = Table("no_applicable_rule", "source", "n", "share")
    for kind, values in figures["no_applicable_rule"].items():
        table.add_row(kind, "all", str(values["all"]["n"]), text(values["all"]))
        for source, value in values["sources"].items():
            table.add_row("", source, str(value["n"]), text(value))
    console.print(table)
    value = figures["answers with an answer rule of the top category"]
    console.print(f"answers with an answer rule of the top category: {text(value)} of {value['n']}")
    for name, value in figures["xstest benign"].items():
        console.print(f"xstest benign, {name}: {text(value)} of {value['n']}", markup=False)
    if top:
        table = Table("source", "right", "came first", "missed@1", "missed@3")
        for item in figures["confusions"][:top]:
            table.add_row(*(str(value) for value in item.values()))
        console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with one *.jsonl file a source")
    parser.add_argument("--map", type=Path, required=True, help="label_map.json")
    parser.add_argument("--rules", type=Path, help="rules folder (default: our own)")
    parser.add_argument(
        "--artefact", type=Path, default=Path("runs/benchmarks/artefact"), help="index folder"
    )
    parser.add_argument("--model", help="embedding model, a folder or a hub name")
    parser.add_argument("--threshold", type=float, help="instead of the one in force")
    parser.add_argument(
        "--confusions", type=int, default=20, metavar="N", help="lines of what came instead (20)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    try:
        figures = run(options)
    except (RuleServiceError, ValueError, OSError) as error:
        print(f"retrieval_quality: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    if options.json:
        print(json.dumps(figures, indent=1, ensure_ascii=False))
    else:
        show(figures, Console(width=150), top=options.confusions)


def run(options: argparse.Namespace) -> dict[str, Any]:
    labels: Map = json.loads(options.map.read_text(encoding="utf-8"))["map"]
    rows = read_rows(options.data)
    settings = load_settings(
        dir=[options.rules] if options.rules else None,
        artefact=options.artefact,
        model=options.model,
        threshold=options.threshold,
        watch=False,
        cache_size=0,
    )
    prepared = load_or_build(settings, lambda message: print(message, file=sys.stderr))
    encoder = CachedEncoder(prepared.encoder, options.artefact.parent)
    remembered = LoadedIndex(encoder, prepared.index, ())
    service = RuleService(remembered, settings)
    everything = RuleService(remembered, settings.model_copy(update={"threshold": ALWAYS}))
    try:
        asked = asyncio.run(ask_all(service, everything, rows))
    finally:
        encoder.save()
    book = asked[0].answer.rulebook.model_dump()
    return {"rulebook": book, "threshold": asked[0].answer.threshold, **measure(asked, labels)}


if __name__ == "__main__":
    main()
