"""Measures retrieval on labelled prompts: the right category, its `answer` rule, and no rule if none applies.

    python -m benchmarks.retrieval.quality --data DATA --map DATA/label_map.json [--rules rules] [--json]

DATA contains one JSON Lines file per source, with `id`, `source`, `prompt`, `kind` and `category`. The map
lists for each source and label the rulebook categories that count as correct (null: the label implies none;
`*`: any label). Every prompt goes through the rule service: its windows, search and threshold.

Hits are counted on the three rules that a consultation returns. At the threshold, an answer without rules is
a miss, because that is what a user gets; `without threshold` measures the ranking alone.
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
from rule_server.schemas import MAX_SITUATION_CHARS, ConsultRequest, ConsultResponse
from rule_server.service.rule_service import RuleService
from rule_server.settings import load_settings

TOP_K = 3
SKIPPED = ("xstest_responses",)  # answers to prompts of another source
LOOKALIKES = "benign-lookalikes"
NO_THRESHOLD = -2.0  # every rule reaches it

Row = dict[str, Any]
LabelMap = dict[str, dict[str, list[str] | None]]


@dataclass(frozen=True)
class PromptResult:
    """A prompt, and the responses to it with and without the threshold."""

    row: Row
    response: ConsultResponse
    unlimited: ConsultResponse


def read_rows(folder: Path) -> list[Row]:
    """Reads the prompts of every source in a folder.

    Raises:
        ValueError: a line is invalid or there are no prompts. The message names the file and line.
    """
    rows: list[Row] = []
    for file in sorted(folder.glob("*.jsonl")):
        if file.stem in SKIPPED:
            continue
        for number, line in enumerate(file.read_text(encoding="utf-8").rstrip("\n").split("\n"), 1):
            try:
                row = json.loads(line)
                rows.append({"source": file.stem, "category": None, "kind": None, **row})
                if not isinstance(row["prompt"], str):
                    raise TypeError
            except (ValueError, TypeError, KeyError):
                raise ValueError(f"{file.name} line {number} is not a JSON object with a `prompt`") from None
    if not rows:
        raise ValueError(f"{folder} contains no prompts: specify a folder with *.jsonl files with --data")
    return rows


def expected_categories(row: Row, labels: LabelMap) -> frozenset[str] | None:
    """Returns the categories that count as correct for a prompt; None if its label is missing or implies
    none."""
    source_labels = labels.get(row["source"])
    if source_labels is None:
        return None
    label = row["category"]
    if "*" in source_labels:
        return frozenset(source_labels["*"] or ()) or None
    if label is None:
        return None
    names = [label] if label in source_labels else [name.strip() for name in str(label).split("|")]
    expected = frozenset(category for name in names for category in source_labels.get(name) or ())
    return expected or None


def share_with_interval(flags: Iterable[bool]) -> dict[str, float | int]:
    """Returns the share of true flags with its interval, and their number."""
    values = list(flags)
    share, low, high = wilson(sum(values), len(values))
    return {"share": round(share, 4), "low": round(low, 4), "high": round(high, 4), "n": len(values)}


def is_hit(response: ConsultResponse, expected: frozenset[str], depth: int) -> bool:
    return any(rule.category in expected for rule in response.rules[:depth])


def has_answer_rule(response: ConsultResponse) -> bool:
    """Returns whether the response includes an `answer` rule of its top category."""
    top = response.rules[0].category
    return any(rule.category == top and rule.stance == "answer" for rule in response.rules)


def fits_benign(response: ConsultResponse) -> bool:
    """Returns whether there is no rule, a look-alike rule, or an `answer` rule of the top category."""
    return (
        not response.rules
        or any(rule.category == LOOKALIKES for rule in response.rules)
        or has_answer_rule(response)
    )


def strictly_fits_benign(response: ConsultResponse, expected: frozenset[str] | None) -> bool:
    """Returns whether there is no rule, or an `answer` rule of a category that the label names."""
    categories = (expected or frozenset()) | {LOOKALIKES}
    return not response.rules or any(
        rule.category in categories and rule.stance == "answer" for rule in response.rules
    )


async def consult_all(
    service: RuleService, unlimited: RuleService, rows: Sequence[Row]
) -> list[PromptResult]:
    results = []
    async with service.running(), unlimited.running():
        await service.warm()
        await unlimited.warm()
        for row in track(rows, "asking", console=Console(stderr=True), transient=True):
            # Long prompts are cut to the maximum length of a consultation.
            request = ConsultRequest(situation=row["prompt"][:MAX_SITUATION_CHARS] or " ", top_k=TOP_K)
            results.append(
                PromptResult(row, await service.consult(request), await unlimited.consult(request))
            )
    return results


def measure(results: Sequence[PromptResult], labels: LabelMap) -> dict[str, Any]:
    """Returns all metrics by source and kind, as plain data."""
    hits: dict[str, Any] = {}
    for source, group in group_by(results, "source"):
        labelled = [
            (one, expected) for one in group if (expected := expected_categories(one.row, labels)) is not None
        ]
        if not labelled:
            continue
        hits[source] = {
            f"hit@{depth}{suffix}": share_with_interval(
                is_hit(one.response if not suffix else one.unlimited, expected, depth)
                for one, expected in labelled
            )
            for suffix in ("", " without threshold")
            for depth in (1, 3)
        }
    averages = {
        name: round(sum(figures[name]["share"] for figures in hits.values()) / len(hits), 4)
        for name in (next(iter(hits.values())) if hits else ())
    }
    with_rules = [one.response for one in results if one.response.rules]
    nothing = {
        kind: {
            "all": share_with_interval(not one.response.rules for one in group),
            "sources": {
                source: share_with_interval(not one.response.rules for one in subset)
                for source, subset in group_by(group, "source")
            },
        }
        for kind, group in group_by(results, "kind")
    }
    benign = [
        one for one in results if (one.row["source"], one.row["kind"]) == ("xstest", "benign_sensitive")
    ]
    return {
        "hits": hits,
        "averages over sources": averages,
        "answers with an answer rule of the top category": share_with_interval(
            map(has_answer_rule, with_rules)
        ),
        "no_applicable_rule": nothing,
        "xstest benign": {
            "fitting answer or benign-lookalikes rule, or none": share_with_interval(
                fits_benign(one.response) for one in benign
            ),
            "strict: answer rule of a labelled category, or none": share_with_interval(
                strictly_fits_benign(one.response, expected_categories(one.row, labels)) for one in benign
            ),
            "no_applicable_rule": share_with_interval(not one.response.rules for one in benign),
        },
        "confusions": confusions(results, labels),
    }


def confusions(results: Sequence[PromptResult], labels: LabelMap) -> list[dict[str, Any]]:
    """Returns the rules that rank first on missed prompts, most frequent first, to guide rule authors."""
    counts: dict[tuple[str, str, str], list[int]] = defaultdict(lambda: [0, 0])
    for one in results:
        expected = expected_categories(one.row, labels)
        if expected is None or is_hit(one.response, expected, 1):
            continue
        first = one.response.rules[0].id if one.response.rules else "no_applicable_rule"
        count = counts[one.row["source"], " | ".join(sorted(expected)), first]
        count[0] += 1
        count[1] += not is_hit(one.response, expected, TOP_K)
    ranked = sorted(counts.items(), key=lambda item: (-item[1][1], -item[1][0]))
    return [
        {"source": source, "right": right, "first": first, "missed@1": count[0], "missed@3": count[1]}
        for (source, right, first), count in ranked
    ]


def group_by(results: Sequence[PromptResult], key: str) -> list[tuple[str, list[PromptResult]]]:
    groups: dict[str, list[PromptResult]] = defaultdict(list)
    for one in results:
        groups[str(one.row[key])].append(one)
    return sorted(groups.items())


def print_tables(figures: dict[str, Any], console: Console, *, top: int) -> None:
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
    parser.add_argument("--data", type=Path, required=True, help="folder with one *.jsonl file per source")
    parser.add_argument("--map", type=Path, required=True, help="label_map.json")
    parser.add_argument("--rules", type=Path, help="rules folder (default: the packaged rules)")
    parser.add_argument(
        "--artefact", type=Path, default=Path("runs/benchmarks/artefact"), help="index folder"
    )
    parser.add_argument("--model", help="embedding model: folder or hub name")
    parser.add_argument("--threshold", type=float, help="overrides the configured threshold")
    parser.add_argument(
        "--confusions", type=int, default=20, metavar="N", help="number of confusions to print (20)"
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
        print_tables(figures, Console(width=150), top=options.confusions)


def run(options: argparse.Namespace) -> dict[str, Any]:
    labels: LabelMap = json.loads(options.map.read_text(encoding="utf-8"))["map"]
    rows = read_rows(options.data)
    settings = load_settings(
        dir=[options.rules] if options.rules else None,
        artefact=options.artefact,
        model=options.model,
        threshold=options.threshold,
        watch=False,
        cache_size=0,
    )
    loaded = load_or_build(settings, lambda message: print(message, file=sys.stderr))
    encoder = CachedEncoder(loaded.encoder, options.artefact.parent)
    cached = LoadedIndex(encoder, loaded.index, ())
    service = RuleService(cached, settings)
    unlimited = RuleService(cached, settings.model_copy(update={"threshold": NO_THRESHOLD}))
    try:
        results = asyncio.run(consult_all(service, unlimited, rows))
    finally:
        encoder.save()
    book = results[0].response.rulebook.model_dump()
    return {"rulebook": book, "threshold": results[0].response.threshold, **measure(results, labels)}


if __name__ == "__main__":
    main()
