"""Measures whether a question finds the same category in other languages as in English, and its cost.

    python -m benchmarks.retrieval.multilingual.languages --data DATA [--json]

DATA contains `multijail.jsonl`: the same prompts in several languages, as rows with `prompt`, `lang` and an
`id` that ends in the language. The reference is the category that comes first for the English row. It may be
wrong, so 1.0 is not the aim. The threshold plays no part.

The time is the processor time of encoding and scoring one question at a time, as the service does, without
protocols.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.retrieval.cached_encoder import CachedEncoder
from benchmarks.retrieval.quality import LOOKALIKES, share_with_interval
from rule_server.errors import RuleServiceError
from rule_server.retrieval import split_into_windows
from rule_server.retrieval.build import load_or_build
from rule_server.retrieval.encoders.paired import PairedEncoder
from rule_server.retrieval.index import RuleIndex
from rule_server.schemas import MAX_SITUATION_CHARS
from rule_server.settings import load_settings

SOURCE = "multijail.jsonl"
REFERENCE = "en"
TIMED = 60
"""Prompts of each language that are timed."""


def first_categories(index: RuleIndex, encoder: CachedEncoder, prompts: list[str]) -> list[str]:
    """Returns the category that comes first for each prompt."""
    windows = [split_into_windows(prompt[:MAX_SITUATION_CHARS]) for prompt in prompts]
    vectors = encoder.encode([window for own in windows for window in own])
    parts = np.split(vectors, np.cumsum([len(own) for own in windows])[:-1])
    return [index.ranked(index.scores(part), 1)[0].rule.category for part in parts]


def milliseconds(index: RuleIndex, encoder: PairedEncoder, prompts: Sequence[str]) -> float:
    """Returns the median processor time of a question, in ms."""
    times = []
    for prompt in prompts[:TIMED]:
        windows = split_into_windows(prompt[:MAX_SITUATION_CHARS])
        start = time.process_time()
        vectors = encoder.encode_multilingual(windows)
        index.score_batch(vectors, [len(windows)], partial(encoder.complete, windows))
        times.append(time.process_time() - start)
    return round(1000 * float(np.median(times)), 1)


def measure(rows: list[dict[str, Any]], categories: list[str]) -> dict[str, Any]:
    """Returns for each language the share that agrees with English, and of look-alikes first."""
    names = [str(row["id"]).rpartition("-")[0] for row in rows]
    english = {
        name: category
        for name, row, category in zip(names, rows, categories, strict=True)
        if row["lang"] == REFERENCE
    }
    figures = {}
    for lang in sorted({row["lang"] for row in rows}):
        own = [
            (category, english[name])
            for name, row, category in zip(names, rows, categories, strict=True)
            if row["lang"] == lang and name in english
        ]
        figures[lang] = {
            "as in English": share_with_interval(category == right for category, right in own),
            "look-alikes first": share_with_interval(category == LOOKALIKES for category, _ in own),
        }
    return figures


def run(options: argparse.Namespace) -> dict[str, Any]:
    lines = (options.data / SOURCE).read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    loaded = load_or_build(
        load_settings(artefact=options.artefact, watch=False, precision="exact"),
        lambda text: print(text, file=sys.stderr),
    )
    encoder = CachedEncoder(loaded.encoder, options.artefact.parent)
    categories = first_categories(loaded.index, encoder, [row["prompt"] for row in rows])
    encoder.save()
    figures = measure(rows, categories)
    assert isinstance(loaded.encoder, PairedEncoder)
    loaded.encoder.encode(["Aufwärmen"])
    for lang, own in figures.items():
        prompts = [row["prompt"] for row in rows if row["lang"] == lang]
        own["ms"] = milliseconds(loaded.index, loaded.encoder, prompts)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help=f"folder with {SOURCE}")
    parser.add_argument(
        "--artefact", type=Path, default=Path("runs/benchmarks/artefact"), help="index folder"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    try:
        figures = run(options)
    except (RuleServiceError, ValueError, KeyError, OSError) as error:
        print(f"languages: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    if options.json:
        print(json.dumps(figures, indent=1))
        return
    table = Table("language", "prompts", "same category as in English", "look-alikes first", "ms")
    for lang, values in figures.items():
        own, looks, ms = values.values()
        table.add_row(lang, str(own["n"]), f"{own['share']:.2f}", f"{looks['share']:.2f}", f"{ms}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
