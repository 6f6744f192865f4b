"""How well Chinese questions find their rules, with the Chinese translations and without.

    python -m benchmarks.retrieval.chinese [--rules rules] [--model FOLDER] [--json]

The prompts are our own (`benchmarks/retrieval/zh_prompts.jsonl`: `id`, `prompt`, `kind`, `category`, null for
`benign_plain`). The packaged encoder, all-MiniLM-L6-v2, knows English: expect poor figures from it, and name
a multilingual model by `--model`. There is no target. `no rule` is the share at the threshold in force,
which was measured on English.
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
from benchmarks.retrieval.quality import ALWAYS, TOP_K, rate
from rule_server.errors import RuleServiceError
from rule_server.retrieval import Encoder
from rule_server.retrieval.build import load_or_build
from rule_server.retrieval.index import RuleIndex, threshold_for
from rule_server.rulebook import Rulebook
from rule_server.settings import load_settings

PROMPTS = Path(__file__).with_name("zh_prompts.jsonl")

Row = dict[str, Any]


def without_translations(rulebook: Rulebook) -> Rulebook:
    """The same rulebook in its original language alone."""
    return Rulebook(
        name=rulebook.name,
        version=rulebook.version,
        categories=rulebook.categories,
        rules=[rule for rule in rulebook.rules if not rule.lang],
    )


def measure(index: RuleIndex, encoder: Encoder, rows: Sequence[Row], threshold: float) -> dict[str, Any]:
    """Hits by kind (labelled prompts) and the share without any rule (every kind), as `rate` gives them."""
    vectors = encoder.encode([row["prompt"] for row in rows])
    figures: dict[str, Any] = {}
    for kind in dict.fromkeys(row["kind"] for row in rows):
        first, among, none = [], [], []
        for row, vector in zip(rows, vectors, strict=True):
            if row["kind"] != kind:
                continue
            hits = index.search(vector[None], top_k=TOP_K, threshold=ALWAYS)[:TOP_K]
            none.append(not index.search(vector[None], top_k=TOP_K, threshold=threshold))
            if row["category"] is not None:
                found = [hit.rule.category for hit in hits]
                first.append(found[0] == row["category"])
                among.append(row["category"] in found)
        figures[kind] = {"no_rule": rate(none)}
        if first:
            figures[kind] |= {"hit@1": rate(first), "hit@3": rate(among)}
    return figures


def run(options: argparse.Namespace) -> dict[str, Any]:
    rows = [json.loads(line) for line in PROMPTS.read_text(encoding="utf-8").splitlines()]
    settings = load_settings(
        dir=[options.rules] if options.rules else None,
        artefact=options.artefact,
        model=options.model,
        watch=False,
        cache_size=0,
    )
    prepared = load_or_build(settings, lambda message: print(message, file=sys.stderr))
    encoder = CachedEncoder(prepared.encoder, options.artefact.parent)
    rulebook = prepared.index.rulebook
    plain = RuleIndex.build(without_translations(rulebook), encoder, prepared.index.vectors_by_text())
    threshold = threshold_for(prepared.index, settings.threshold).value
    figures = {
        "rulebook": rulebook.digest,
        "encoder": encoder.fingerprint,
        "translations": len(rulebook.translations),
        "threshold": threshold,
        "with translations": measure(prepared.index, encoder, rows, threshold),
        "without": measure(plain, encoder, rows, threshold),
    }
    encoder.save()
    return figures


def show(figures: dict[str, Any], console: Console) -> None:
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
    parser.add_argument("--rules", type=Path, help="rules folder (default: our own)")
    parser.add_argument(
        "--artefact", type=Path, default=Path("runs/benchmarks/artefact"), help="index folder"
    )
    parser.add_argument("--model", help="embedding model, a folder or a hub name")
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
        show(figures, Console(width=110))


if __name__ == "__main__":
    main()
