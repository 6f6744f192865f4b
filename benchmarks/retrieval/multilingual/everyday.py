"""Measures to how many of our own everyday requests nothing applies that no part was trained on.

    python -m benchmarks.retrieval.multilingual.everyday [--json]

`unseen_everyday.jsonl` has German, Spanish, French and Vietnamese requests, which were written before they
were first measured. Do not train on them. The second column is the decision of the first stage alone, which
every question passes.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.retrieval.quality import share_with_interval
from rule_server.errors import RuleServiceError
from rule_server.retrieval.build import load_or_build
from rule_server.retrieval.encoders.paired import PairedEncoder
from rule_server.retrieval.index import threshold_for
from rule_server.settings import load_settings

REQUESTS = Path(__file__).with_name("unseen_everyday.jsonl")


def run(options: argparse.Namespace) -> dict[str, Any]:
    rows = [json.loads(line) for line in REQUESTS.read_text(encoding="utf-8").splitlines()]
    loaded = load_or_build(
        load_settings(artefact=options.artefact, watch=False, precision="exact"),
        lambda text: print(text, file=sys.stderr),
    )
    assert isinstance(loaded.encoder, PairedEncoder)
    threshold = threshold_for(loaded.index, None).value
    figures = {}
    for lang in dict.fromkeys(row["lang"] for row in rows):
        prompts = [row["prompt"] for row in rows if row["lang"] == lang]
        vectors = loaded.encoder.encode(prompts)
        found = [bool(loaded.index.scores(own[None]).max() >= threshold) for own in vectors]
        # Vectors without the part of the larger encoder get the decision of the first stage.
        first = vectors[:, : loaded.encoder.dimension]
        by_first = [bool(loaded.index.scores(own[None]).max() >= threshold) for own in first]
        figures[lang] = {
            "nothing applies": share_with_interval(not own for own in found),
            "by the first stage alone": share_with_interval(not own for own in by_first),
            "find rules": [prompt for prompt, own in zip(prompts, found, strict=True) if own],
        }
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--artefact", type=Path, default=Path("runs/benchmarks/artefact"), help="index folder"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, with the requests that find rules")
    options = parser.parse_args()
    try:
        figures = run(options)
    except (RuleServiceError, ValueError, OSError) as error:
        print(f"everyday: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    if options.json:
        print(json.dumps(figures, indent=1, ensure_ascii=False))
        return
    table = Table("language", "requests", "nothing applies", "by the first stage alone")
    for lang, own in figures.items():
        shares = [own[name] for name in ("nothing applies", "by the first stage alone")]
        table.add_row(
            lang,
            str(shares[0]["n"]),
            *(f"{x['share']:.2f} [{x['low']:.2f}, {x['high']:.2f}]" for x in shares),
        )
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
