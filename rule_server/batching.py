"""One queue before the encoder: whoever asks while it works shares the next batch with whoever else does."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from rule_server.encoder import BATCH, Encoder
from rule_server.errors import NotReadyError

if TYPE_CHECKING:
    from rule_server.encoder import Vectors

    Waiting = tuple[list[str], asyncio.Future[Vectors], float]


class Batcher:
    """Encodes texts of many callers in one worker thread.

    It never waits for a batch to fill: measured, that doubled the time of a lone caller and gained nothing.
    """

    def __init__(self, encoder: Encoder, observe: Callable[[str, float], None] | None = None) -> None:
        """`observe` is told the seconds that a request waited (`queue`) and that a batch took (`encode`)."""
        self._encoder = encoder
        self._observe = observe
        self._queue: asyncio.Queue[Waiting] | None = None

    @property
    def depth(self) -> int:
        """Requests that wait."""
        return self._queue.qsize() if self._queue is not None else 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Texts are encoded while this block runs."""
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
                    _, future, _ = queue.get_nowait()
                    future.cancel()

    async def encode(self, texts: list[str]) -> Vectors:
        """Vectors (len(texts), dimension). Raises NotReadyError outside `running`, or the encoder's error."""
        if self._queue is None:
            raise NotReadyError("the encoder is not running")
        future: asyncio.Future[Vectors] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((texts, future, time.perf_counter()))
        return await future

    async def _work(self, queue: asyncio.Queue[Waiting], thread: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = [await queue.get()]
            while not queue.empty() and sum(len(texts) for texts, _, _ in batch) < BATCH:
                batch.append(queue.get_nowait())
            # A caller that went away while it waited costs nothing.
            batch = [waiting for waiting in batch if not waiting[1].done()]
            began = time.perf_counter()
            try:
                vectors = await loop.run_in_executor(
                    thread, self._encoder.encode, [text for texts, _, _ in batch for text in texts]
                )
            except asyncio.CancelledError:
                for _, future, _ in batch:
                    future.cancel()
                raise
            except Exception as error:  # whatever it is belongs to the callers of this batch, not to the next
                for _, future, _ in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            if self._observe is not None:
                self._observe("encode", time.perf_counter() - began)
                for _, _, since in batch:
                    self._observe("queue", began - since)
            at = 0
            for texts, future, _ in batch:
                if not future.done():
                    future.set_result(vectors[at : at + len(texts)])
                at += len(texts)
