"""Compares consultations with int8 weights and in full precision: verdicts, first rules and hits.

    python -m benchmarks.retrieval.precision --data DATA --map DATA/label_map.json

DATA and the map are those of `benchmarks.retrieval.quality`. Each prompt is scored with both precisions, as
the service does it: its windows, both stages, and the threshold. Needs a processor with fast int8 products.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.retrieval.quality import TOP_K, LabelMap, Row, expected_categories, read_rows
from rule_server.retrieval import split_into_windows
from rule_server.retrieval.build import load_or_build
from rule_server.retrieval.encoders.paired import PairedEncoder
from rule_server.retrieval.index import RuleIndex, threshold_for
from rule_server.schemas import MAX_SITUATION_CHARS
from rule_server.settings import load_settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

BATCH = 32


def scores(index: RuleIndex, encoder: PairedEncoder, rows: Sequence[Row]) -> list[NDArray[np.float64]]:
    """Returns the scores of every rule for each prompt. Prompts of a batch are similar in length."""
    order = sorted(range(len(rows)), key=lambda at: len(rows[at]["prompt"]))
    found: dict[int, NDArray[np.float64]] = {}
    batches = [order[at : at + BATCH] for at in range(0, len(order), BATCH)]
    console = Console(stderr=True)
    for batch in track(batches, f"asking, {encoder.precision}", console=console, transient=True):
        windows = [split_into_windows(rows[at]["prompt"][:MAX_SITUATION_CHARS] or " ") for at in batch]
        texts = [window for own in windows for window in own]
        complete = partial(encoder.complete, texts)
        sizes = [len(own) for own in windows]
        vectors = encoder.encode_multilingual(texts)
        found |= zip(batch, index.score_batch(vectors, sizes, complete), strict=True)
    return [found[at] for at in range(len(rows))]


def compare(index: RuleIndex, encoder: PairedEncoder, rows: Sequence[Row], labels: LabelMap) -> list[Any]:
    """Returns a row of figures for each source and kind, and one for all prompts."""
    threshold = threshold_for(index, None).value
    select = partial(index.select, top_k=TOP_K, threshold=threshold)
    both = [[select(own) for own in scores(index, one, rows)] for one in (encoder.exact, encoder)]
    groups: dict[str, list[int]] = defaultdict(list)
    for at, row in enumerate(rows):
        groups[f"{row['source']}, {row['kind']}"].append(at)
        groups["all"].append(at)
    table = []
    for name, members in sorted(groups.items(), key=lambda item: item[0] == "all"):
        pairs = [(both[0][at], both[1][at]) for at in members]
        found = [(exact, rounded) for exact, rounded in pairs if exact and rounded]
        figures: dict[str, Any] = {
            "prompts": len(pairs),
            "nothing applies, exact": np.mean([not exact for exact, _ in pairs]),
            "int8": np.mean([not rounded for _, rounded in pairs]),
            "other verdict": sum(bool(exact) != bool(rounded) for exact, rounded in pairs),
            "same first rule": np.mean([one[0].rule.id == two[0].rule.id for one, two in found])
            if found
            else None,
        }
        expected = [expected_categories(rows[at], labels) for at in members]
        for depth in (1, 3):
            for side, precision in enumerate(("exact", "int8")):
                hits = [
                    any(hit.rule.category in wanted for hit in pair[side][:depth])
                    for pair, wanted in zip(pairs, expected, strict=True)
                    if wanted is not None
                ]
                figures[f"hit@{depth}, {precision}"] = np.mean(hits) if hits else None
        table.append({"source": name, **figures})
    return table


def main() -> None:
    """Parses the options, compares and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with one *.jsonl file per source")
    parser.add_argument("--map", type=Path, required=True, help="label_map.json")
    parser.add_argument(
        "--artefact", type=Path, default=Path("runs/benchmarks/artefact"), help="index folder"
    )
    options = parser.parse_args()
    labels: LabelMap = json.loads(options.map.read_text(encoding="utf-8"))["map"]
    settings = load_settings(artefact=options.artefact, watch=False)
    loaded = load_or_build(settings, lambda message: print(message, file=sys.stderr))
    if not isinstance(loaded.encoder, PairedEncoder) or loaded.encoder.precision != "int8":
        raise SystemExit(
            "precision: this processor has no fast int8 products, so there is nothing to compare"
        )
    rows = compare(loaded.index, loaded.encoder, read_rows(options.data), labels)
    table = Table(*rows[0])
    for row in rows:
        cells = ["" if value is None else value for value in row.values()]
        table.add_row(*(f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in cells))
    Console(width=170).print(table)


if __name__ == "__main__":
    main()
