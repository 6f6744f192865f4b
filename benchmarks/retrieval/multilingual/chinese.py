"""Measures retrieval for Chinese questions, with and without the Chinese translations of the rules.

    python -m benchmarks.retrieval.multilingual.chinese [--rules rules] [--model FOLDER] [--json]

The prompts were written for this benchmark (`zh_prompts.jsonl`: `id`, `prompt`, `kind`, `category`, null for
`benign_plain`). The packaged encoder all-MiniLM-L6-v2 is trained on English, so it
performs poorly; pass a multilingual model with `--model`. The benchmark sets no target. `no rule` is the
share at the configured threshold, which was calibrated on English.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.retrieval.cached_encoder import CachedEncoder
from benchmarks.retrieval.quality import NO_THRESHOLD, TOP_K, share_with_interval
from rule_server.errors import RuleServiceError
from rule_server.retrieval import Encoder
from rule_server.retrieval.build import load_or_build
from rule_server.retrieval.index import RuleIndex, threshold_for
from rule_server.rulebook import Rulebook
from rule_server.settings import load_settings

PROMPTS = Path(__file__).with_name("zh_prompts.jsonl")

Row = dict[str, Any]


def without_translations(rulebook: Rulebook) -> Rulebook:
    """Returns the rulebook without its translations."""
    return Rulebook(
        name=rulebook.name,
        version=rulebook.version,
        categories=rulebook.categories,
        rules=[rule for rule in rulebook.rules if not rule.lang],
    )


def measure(index: RuleIndex, encoder: Encoder, rows: Sequence[Row], threshold: float) -> dict[str, Any]:
    """Returns, by kind, the hits of labelled prompts and the share of prompts without a rule."""
    vectors = encoder.encode([row["prompt"] for row in rows])
    figures: dict[str, Any] = {}
    for kind in dict.fromkeys(row["kind"] for row in rows):
        first, top, none = [], [], []
        for row, vector in zip(rows, vectors, strict=True):
            if row["kind"] != kind:
                continue
            hits = index.search(vector[None], top_k=TOP_K, threshold=NO_THRESHOLD)[:TOP_K]
            none.append(not index.search(vector[None], top_k=TOP_K, threshold=threshold))
            if row["category"] is not None:
                categories = [hit.rule.category for hit in hits]
                first.append(categories[0] == row["category"])
                top.append(row["category"] in categories)
        figures[kind] = {"no_rule": share_with_interval(none)}
        if first:
            figures[kind] |= {"hit@1": share_with_interval(first), "hit@3": share_with_interval(top)}
    return figures


def run(options: argparse.Namespace) -> dict[str, Any]:
    rows = [json.loads(line) for line in PROMPTS.read_text(encoding="utf-8").splitlines()]
    settings = load_settings(
        dir=[options.rules] if options.rules else None,
        artefact=options.artefact,
        model=options.model,
        watch=False,
        precision="exact",
        cache_size=0,
    )
    loaded = load_or_build(settings, lambda message: print(message, file=sys.stderr))
    encoder = CachedEncoder(loaded.encoder, options.artefact.parent)
    rulebook = loaded.index.rulebook
    original = RuleIndex.build(without_translations(rulebook), encoder, loaded.index.vectors_by_text())
    threshold = threshold_for(loaded.index, settings.threshold).value
    figures = {
        "rulebook": rulebook.digest,
        "encoder": encoder.fingerprint,
        "translations": len(rulebook.translations),
        "threshold": threshold,
        "with translations": measure(loaded.index, encoder, rows, threshold),
        "without": measure(original, encoder, rows, threshold),
    }
    encoder.save()
    return figures


def print_table(figures: dict[str, Any], console: Console) -> None:
    table = Table(title=f"Chinese prompts, {figures['translations']} translated rules")
    for heading in ("rulebook", "kind", "n", "hit@1", "hit@3", "no rule"):
        table.add_column(heading)
    for name in ("with translations", "without"):
        for kind, value in figures[name].items():
            shares = [
                f"{value[key]['share']:.2f}" if key in value else "" for key in ("hit@1", "hit@3", "no_rule")
            ]
            table.add_row(name, kind, str(value["no_rule"]["n"]), *shares)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rules", type=Path, help="rules folder (default: the packaged rules)")
    parser.add_argument(
        "--artefact", type=Path, default=Path("runs/benchmarks/artefact"), help="index folder"
    )
    parser.add_argument("--model", help="embedding model: folder or hub name")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    try:
        figures = run(options)
    except (RuleServiceError, OSError) as error:
        print(f"retrieval_chinese: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    if options.json:
        print(json.dumps(figures, indent=1, ensure_ascii=False))
    else:
        print_table(figures, Console(width=110))


if __name__ == "__main__":
    main()
