"""Does the encoder that serves agree with sentence-transformers, and does search with it find the same?

    python -m benchmarks.retrieval.encoder_agreement --data DATA [--queries 500] [--json]

Takes prompts evenly from every source in DATA, embeds them and the rulebook's texts by both, and reports the
least cosine between the two vectors of a prompt, and how often the five nearest texts are the same, in order.
Two texts whose cosines differ by less than 1e-6 may change places: neither computes them more exactly.
Ends with code 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.retrieval.quality import read_rows
from rule_server.errors import RuleServiceError
from rule_server.retrieval import resolve_model, split_into_windows
from rule_server.retrieval.build import load_or_build
from rule_server.retrieval.index import index_entries
from rule_server.settings import load_settings

LEAST_COSINE, TOP, TIE = 0.9999, 5, 1e-6


def spread(rows: list[dict[str, Any]], count: int) -> list[str]:
    """So many prompts, evenly from each source, in a fixed order; of a long one the first window."""
    sources = sorted({row["source"] for row in rows})
    queues = [[row["prompt"] for row in rows if row["source"] == source] for source in sources]
    chosen: list[str] = []
    for turn in range(max(map(len, queues))):
        chosen += [queue[turn] for queue in queues if turn < len(queue)]
    return [split_into_windows(prompt)[0] for prompt in chosen[:count] if prompt.strip()]


def same_top(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> bool:
    """Whether the texts nearest by our cosines are those nearest by theirs, but for ties."""
    mine, reference = np.argsort(-ours, kind="stable")[:TOP], np.argsort(-theirs, kind="stable")[:TOP]
    return bool(np.all((mine == reference) | (np.abs(theirs[mine] - theirs[reference]) < TIE)))


def compare(options: argparse.Namespace) -> dict[str, Any]:
    settings = load_settings(artefact=options.artefact, model=options.model, watch=False)
    prepared = load_or_build(settings, lambda message: print(message, file=sys.stderr))
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from sentence_transformers import SentenceTransformer

    queries = spread(read_rows(options.data), options.queries)
    texts = [text for _, text in index_entries(prepared.index.rulebook)]
    reference = SentenceTransformer(str(resolve_model(settings.model)), device="cpu")

    def by_reference(batch: list[str]) -> NDArray[np.float32]:
        return np.asarray(reference.encode(batch, normalize_embeddings=True, show_progress_bar=False))

    ours, theirs = prepared.encoder.encode(queries), by_reference(queries)
    our_texts, their_texts = prepared.index.vectors, by_reference(texts)
    cosines = (ours * theirs).sum(1)
    same = [
        same_top(mine, other) for mine, other in zip(ours @ our_texts.T, theirs @ their_texts.T, strict=True)
    ]
    return {
        "encoder": prepared.encoder.fingerprint,
        "queries": len(queries),
        "texts": len(texts),
        "least_cosine": round(float(cosines.min()), 7),
        "mean_cosine": round(float(cosines.mean()), 7),
        "same_top_5": sum(same),
        "ok": bool(cosines.min() >= LEAST_COSINE and all(same)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with one *.jsonl file a source")
    parser.add_argument("--queries", type=int, default=500, help="how many prompts (500)")
    parser.add_argument(
        "--artefact", type=Path, default=Path("runs/benchmarks/artefact"), help="index folder"
    )
    parser.add_argument("--model", help="embedding model, a folder or a hub name")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    try:
        figures = compare(options)
    except (RuleServiceError, ValueError, OSError) as error:
        print(f"encoder_agreement: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    if options.json:
        print(json.dumps(figures, indent=1))
    else:
        for name, value in figures.items():
            print(f"{name.replace('_', ' ')}: {value}")
    raise SystemExit(0 if figures["ok"] else 1)


if __name__ == "__main__":
    main()
