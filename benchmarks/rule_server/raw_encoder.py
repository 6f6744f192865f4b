"""Measures the encoders alone, in a separate process on the server core: the upper bound for any server.

A question that finds rules is read by both encoders, and one that the first stage turns away by the
multilingual encoder only. The recognition of the language, which decides what reads a text, counts as
encoding.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

from benchmarks.tools.cpu_pinning import SERVER_CORE, pin_to_core
from rule_server.retrieval import BATCH_SIZE
from rule_server.retrieval.artefact import Artefact

Needs = Literal["both", "first"]
"""The encoders that questions go through: both, or only that of the first stage."""


class RawEncoder:
    """Measures batches of texts."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def measure(self, texts: Sequence[str], needs: Needs) -> tuple[float, float]:
        """Returns texts per second, and seconds of processor time per text, in batches of 32."""
        self._pipe.send((list(texts), needs))
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
    encoder.encode(["warm up"] * BATCH_SIZE)
    while (task := pipe.recv()) is not None:
        texts, needs = task
        encode = encoder.encode if needs == "both" else encoder.encode_multilingual
        start, cpu_start = time.perf_counter(), time.process_time()
        for first in range(0, len(texts), BATCH_SIZE):
            encode(texts[first : first + BATCH_SIZE])
        pipe.send((time.perf_counter() - start, time.process_time() - cpu_start))
