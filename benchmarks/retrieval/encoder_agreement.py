"""Compares the service's ONNX encoder with sentence-transformers: vectors and search results.

    python -m benchmarks.retrieval.encoder_agreement --data DATA [--queries 500] [--json]

Takes prompts evenly from every source in DATA, embeds them and the rulebook's texts with both encoders, and
reports the lowest cosine between the two vectors of a prompt, and how often the five nearest texts are the
same, in order. Texts whose cosines differ by less than 1e-6 may swap places, because neither encoder is more
precise. Exits with 1 if a target is missed.
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
from rule_server.retrieval.encoders.paired import PairedEncoder
from rule_server.retrieval.index import index_entries
from rule_server.settings import load_settings

MIN_COSINE, TOP_K, TIE_TOLERANCE = 0.9999, 5, 1e-6


def sample_prompts(rows: list[dict[str, Any]], count: int) -> list[str]:
    """Returns `count` prompts, evenly from each source, in a fixed order. Uses the first window of long
    ones."""
    sources = sorted({row["source"] for row in rows})
    queues = [[row["prompt"] for row in rows if row["source"] == source] for source in sources]
    chosen: list[str] = []
    for index in range(max(map(len, queues))):
        chosen += [queue[index] for queue in queues if index < len(queue)]
    return [split_into_windows(prompt)[0] for prompt in chosen[:count] if prompt.strip()]


def same_ranking(onnx: NDArray[np.float32], reference: NDArray[np.float32]) -> bool:
    """Returns whether both cosines rank the same texts highest, except for ties."""
    onnx_top, reference_top = (np.argsort(-cosines, kind="stable")[:TOP_K] for cosines in (onnx, reference))
    ties = np.abs(reference[onnx_top] - reference[reference_top]) < TIE_TOLERANCE
    return bool(np.all((onnx_top == reference_top) | ties))


def compare(options: argparse.Namespace) -> dict[str, Any]:
    settings = load_settings(artefact=options.artefact, model=options.model, watch=False, precision="exact")
    loaded = load_or_build(settings, lambda message: print(message, file=sys.stderr))
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from sentence_transformers import SentenceTransformer

    queries = sample_prompts(read_rows(options.data), options.queries)
    texts = [text for _, text in index_entries(loaded.index.rulebook)]
    reference = SentenceTransformer(str(resolve_model(settings.model)), device="cpu")

    def reference_encode(batch: list[str]) -> NDArray[np.float32]:
        return np.asarray(reference.encode(batch, normalize_embeddings=True, show_progress_bar=False))

    assert isinstance(loaded.encoder, PairedEncoder)
    onnx = loaded.encoder.english
    onnx_queries, reference_queries = onnx.encode(queries), reference_encode(queries)
    onnx_cosines = onnx_queries @ onnx.encode(texts).T
    reference_cosines = reference_queries @ reference_encode(texts).T
    cosines = (onnx_queries * reference_queries).sum(1)
    same = [same_ranking(*pair) for pair in zip(onnx_cosines, reference_cosines, strict=True)]
    return {
        "encoder": onnx.fingerprint,
        "queries": len(queries),
        "texts": len(texts),
        "least_cosine": round(float(cosines.min()), 7),
        "mean_cosine": round(float(cosines.mean()), 7),
        "same_top_5": sum(same),
        "ok": bool(cosines.min() >= MIN_COSINE and all(same)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with one *.jsonl file per source")
    parser.add_argument("--queries", type=int, default=500, help="number of prompts (500)")
    parser.add_argument(
        "--artefact", type=Path, default=Path("runs/benchmarks/artefact"), help="index folder"
    )
    parser.add_argument("--model", help="embedding model: folder or hub name")
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
