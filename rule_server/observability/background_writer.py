"""Runs file operations in a thread with a time limit, because a disk that hangs blocks the event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue


class BackgroundWriter:
    """One thread that runs operations one at a time, in order.

    The thread is a daemon, so that an operation that never returns does not keep the process from ending.
    """

    def __init__(self, limit: float) -> None:
        """`limit` is the maximum time of an operation, including its wait in the queue, in seconds."""
        self.limit = limit
        self._queue: SimpleQueue[tuple[Callable[[], None], Future[None]] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._started_at: float | None = None
        """Start of the running operation on the monotonic clock; None if none is running."""

    @property
    def hangs(self) -> bool:
        """Whether the operation that is running has exceeded the limit."""
        started_at = self._started_at
        return started_at is not None and time.monotonic() - started_at > self.limit

    async def run(self, operation: Callable[[], None]) -> None:
        """Runs an operation and raises its exceptions.

        Raises:
            TimeoutError: it did not finish within the limit, or an earlier one hangs. An operation that had
                not started is not run any more.
        """
        if self.hangs:
            raise TimeoutError
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="audit-log", daemon=True)
            self._thread.start()
        future: Future[None] = Future()
        self._queue.put((operation, future))
        await asyncio.wait_for(asyncio.wrap_future(future), self.limit)

    async def close(self) -> bool:
        """Ends the thread after the operations in the queue. Returns False if it still runs at the limit."""
        if self._thread is None:
            return True
        self._queue.put(None)
        thread, self._thread = self._thread, None
        if not self.hangs:
            await asyncio.to_thread(thread.join, self.limit)
        return not thread.is_alive()

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            operation, future = item
            if not future.set_running_or_notify_cancel():
                continue
            self._started_at = time.monotonic()
            try:
                operation()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(None)
            finally:
                self._started_at = None
