"""One queue in front of the encoder: requests that arrive while it works share the next batch."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from rule_server.errors import NotReadyError
from rule_server.retrieval import BATCH_SIZE, Encoder, StagedEncoder

if TYPE_CHECKING:
    from rule_server.retrieval.encoders.protocol import Flags, Rows, Vectors
    from rule_server.retrieval.index import Floats, RuleIndex

    PendingRequest = tuple[list[str], RuleIndex, asyncio.Future[Floats], float]


class Batcher:
    """Encodes and scores the questions of many callers in one worker thread.

    It never waits for a batch to fill: in measurements, waiting doubled the latency of a single caller and
    gained no throughput.
    """

    def __init__(self, encoder: Encoder, observe: Callable[[str, float], None] | None = None) -> None:
        """`observe` receives the seconds a request waited (`queue`) and a batch took (`encode`, `score`)."""
        self._encoder = encoder
        self._observe = observe
        self._queue: asyncio.Queue[PendingRequest] | None = None

    @property
    def depth(self) -> int:
        """Number of waiting requests."""
        return self._queue.qsize() if self._queue is not None else 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Scores questions while this block runs."""
        self._queue = asyncio.Queue()
        with ThreadPoolExecutor(1, thread_name_prefix="encoder") as thread:
            worker = asyncio.create_task(self._work(self._queue, thread))
            try:
                yield
            finally:
                worker.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await worker
                queue, self._queue = self._queue, None
                while not queue.empty():
                    _, _, future, _ = queue.get_nowait()
                    future.cancel()

    async def scores(self, windows: list[str], index: RuleIndex) -> Floats:
        """Returns `RuleIndex.scores` of a question given as text windows: (rules,).

        Raises:
            NotReadyError: the batcher is not running. Exceptions of the encoder pass through.
        """
        if self._queue is None:
            raise NotReadyError("the encoder is not running")
        future: asyncio.Future[Floats] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((windows, index, future, time.perf_counter()))
        return await future

    async def _work(self, queue: asyncio.Queue[PendingRequest], thread: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = [await queue.get()]
            while not queue.empty() and sum(len(windows) for windows, *_ in batch) < BATCH_SIZE:
                batch.append(queue.get_nowait())
            # Requests whose caller has left are dropped.
            batch = [request for request in batch if not request[2].done()]
            start = time.perf_counter()
            try:
                results = await loop.run_in_executor(thread, self._score, batch)
            except asyncio.CancelledError:
                for _, _, future, _ in batch:
                    future.cancel()
                raise
            except Exception as error:  # any error concerns the callers of this batch only
                for _, _, future, _ in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, _, future, since), scores in zip(batch, results, strict=True):
                if self._observe is not None:
                    self._observe("queue", start - since)
                if not future.done():
                    future.set_result(scores)

    def _score(self, batch: list[PendingRequest]) -> list[Floats]:
        """Returns the scores of each question, (rules,). Runs in the worker thread.

        Questions to the same rulebook are scored together, in a fifth of the time of scoring them one by one.
        """
        start = time.perf_counter()
        encoding = 0.0
        by_index: dict[int, list[int]] = {}
        for at, (_, index, _, _) in enumerate(batch):
            by_index.setdefault(id(index), []).append(at)
        scores: dict[int, Floats] = {}
        for members in by_index.values():
            index = batch[members[0]][1]
            encoder = _TimedEncoder(self._encoder, [text for at in members for text in batch[at][0]])
            sizes = [len(batch[at][0]) for at in members]
            complete = encoder.complete if isinstance(self._encoder, StagedEncoder) else None
            found = index.score_batch(encoder.first(), sizes, complete)
            scores |= zip(members, found, strict=True)
            encoding += encoder.seconds
        if self._observe is not None:
            self._observe("encode", encoding)
            self._observe("score", time.perf_counter() - start - encoding)
        return [scores[at] for at in range(len(batch))]


class _TimedEncoder:
    """Encodes the texts of one batch in up to two stages, and counts the seconds."""

    def __init__(self, encoder: Encoder, texts: list[str]) -> None:
        self._encoder, self._texts = encoder, texts
        self.seconds = 0.0

    def first(self) -> Vectors:
        """Returns the vectors of the first stage: all parts, if the encoder has only one."""
        start = time.perf_counter()
        if isinstance(self._encoder, StagedEncoder):
            vectors = self._encoder.encode_multilingual(self._texts)
        else:
            vectors = self._encoder.encode(self._texts)
        self.seconds += time.perf_counter() - start
        return vectors

    def complete(self, vectors: Vectors, english: Rows, other: Rows) -> Flags:
        """See `StagedEncoder.complete`."""
        assert isinstance(self._encoder, StagedEncoder)
        start = time.perf_counter()
        is_english = self._encoder.complete(self._texts, vectors, english, other)
        self.seconds += time.perf_counter() - start
        return is_english
