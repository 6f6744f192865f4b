"""The encoder alone, in a process of its own on the server's core: what no server can beat."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.tools.cpu_pinning import SERVER_CORE, keep_to
from rule_server.retrieval import BATCH, OnnxEncoder


class RawEncoder:
    """Measures batches of texts."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def measure(self, texts: Sequence[str]) -> tuple[float, float]:
        """(texts a second, seconds of processor time a text), in batches of 32."""
        self._pipe.send(list(texts))
        seconds, cpu = self._pipe.recv()
        return len(texts) / seconds, cpu / len(texts)


@contextmanager
def raw_encoder(folder: Path) -> Iterator[RawEncoder]:
    """The encoder of an artefact, warm, with one thread."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    here, there = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_work, args=(there, folder), daemon=True)
    process.start()
    try:
        yield RawEncoder(here)
    finally:
        here.send(None)
        process.join(10)


def _work(pipe: Connection, folder: Path) -> None:
    keep_to(SERVER_CORE)
    encoder = OnnxEncoder(folder, threads=1)
    encoder.encode(["warm up"] * BATCH)
    while (texts := pipe.recv()) is not None:
        began, cpu = time.perf_counter(), time.process_time()
        for start in range(0, len(texts), BATCH):
            encoder.encode(texts[start : start + BATCH])
        pipe.send((time.perf_counter() - began, time.process_time() - cpu))
