"""Measures the encoders alone, in a separate process on the server core: the upper bound for any server.

Each question is read by the encoders that the service would use for it. The recognition of the language,
which decides what reads a text, counts as encoding; the scores do not.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.tools.cpu_pinning import SERVER_CORE, pin_to_core
from rule_server.retrieval import BATCH_SIZE
from rule_server.retrieval.artefact import Artefact
from rule_server.retrieval.encoders.paired import PairedEncoder, _language

if TYPE_CHECKING:
    from rule_server.retrieval.encoders.protocol import Flags, Rows, Vectors
    from rule_server.retrieval.index import RuleIndex


class RawEncoder:
    """Measures batches of texts."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def measure(self, texts: Sequence[str]) -> tuple[float, float]:
        """Returns texts per second, and seconds of processor time per text, in batches of 32."""
        self._pipe.send(list(texts))
        seconds, cpu = self._pipe.recv()
        return len(texts) / seconds, cpu / len(texts)


@contextmanager
def raw_encoder(artefact: Path) -> Iterator[RawEncoder]:
    """Runs the encoders of an artefact, warmed up, with one thread."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    parent_end, child_end = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=_work, args=(child_end, artefact), daemon=True
    )
    process.start()
    try:
        yield RawEncoder(parent_end)
    finally:
        parent_end.send(None)
        process.join(10)


def _work(pipe: Connection, folder: Path) -> None:
    pin_to_core(SERVER_CORE)
    artefact = Artefact(folder)
    current = artefact.current()
    assert current is not None
    encoder = artefact.encoder(current.encoder, threads=1)
    index = artefact.index(current.rulebook, current.encoder)
    assert isinstance(encoder, PairedEncoder)
    assert index is not None
    encoder.encode(["warm up"] * BATCH_SIZE)
    while (texts := pipe.recv()) is not None:
        batches = [texts[first : first + BATCH_SIZE] for first in range(0, len(texts), BATCH_SIZE)]
        needed = [_needed(index, encoder, batch) for batch in batches]
        _language.cache_clear()
        start, cpu_start = time.perf_counter(), time.process_time()
        for batch, rows in zip(batches, needed, strict=True):
            encoder.complete(batch, encoder.encode_multilingual(batch), *rows)
        pipe.send((time.perf_counter() - start, time.process_time() - cpu_start))


def _needed(index: RuleIndex, encoder: PairedEncoder, texts: list[str]) -> tuple[Rows, Rows]:
    """Returns which texts the service would encode as English, and which for other languages."""
    needed: list[tuple[Rows, Rows]] = []

    def complete(vectors: Vectors, english: Rows, other: Rows) -> Flags:
        needed.append((english, other))
        return encoder.complete(texts, vectors, english, other)

    index.score_batch(encoder.encode_multilingual(texts), [1] * len(texts), complete)
    return needed[0]
