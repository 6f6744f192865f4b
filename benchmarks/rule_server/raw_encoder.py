"""Measures the encoder alone, in a separate process on the server core: the upper bound for any server."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.tools.cpu_pinning import SERVER_CORE, pin_to_core
from rule_server.retrieval import BATCH_SIZE, OnnxEncoder


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
def raw_encoder(folder: Path) -> Iterator[RawEncoder]:
    """Runs the encoder of an artefact, warmed up, with one thread."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    parent_end, child_end = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=_work, args=(child_end, folder), daemon=True
    )
    process.start()
    try:
        yield RawEncoder(parent_end)
    finally:
        parent_end.send(None)
        process.join(10)


def _work(pipe: Connection, folder: Path) -> None:
    pin_to_core(SERVER_CORE)
    encoder = OnnxEncoder(folder, threads=1)
    encoder.encode(["warm up"] * BATCH_SIZE)
    while (texts := pipe.recv()) is not None:
        start, cpu_start = time.perf_counter(), time.process_time()
        for first in range(0, len(texts), BATCH_SIZE):
            encoder.encode(texts[first : first + BATCH_SIZE])
        pipe.send((time.perf_counter() - start, time.process_time() - cpu_start))
