"""Records on disk, divided by a key, so that what belongs together is read together in little memory.

Advantages need a group's rewards at once, wherever in a log its episodes lie. Records of one key all land in
one part, in the order in which they came, and a part stays small until there are `MAX_PARTITIONS` of them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

MAX_PARTITIONS = 64
"""Each is an open file. Of a log beyond 4 GiB the parts grow, by a few dozen bytes an episode in 64."""

Records = npt.NDArray[np.void]


def partition_count(size: int, each: int) -> int:
    """How many parts of about `each` make `size`."""
    return min(max(-(-size // each), 1), MAX_PARTITIONS)


class Partitions:
    """Records of one form in P parts, each a temporary file."""

    def __init__(self, form: list[tuple[str, str]], files: list[BinaryIO]) -> None:
        self.form = np.dtype(form)
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def of(self, key: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
        """(N,) the part of each key."""
        return (key.view(np.uint64) % np.uint64(len(self))).astype(np.intp)

    def add(self, key: npt.NDArray[np.int64], **columns: Any) -> npt.NDArray[np.int64]:
        """Append N records, each to the part of its key: (P,) how many went to each."""
        records = np.empty(len(key), dtype=self.form)
        for name, values in columns.items():
            records[name] = values
        part = self.of(key)
        counts = np.bincount(part, minlength=len(self))
        ordered = records[np.argsort(part, kind="stable")]
        for file, chosen in zip(self._files, np.split(ordered, np.cumsum(counts)[:-1]), strict=True):
            file.write(chosen.tobytes())
        return counts

    def read(self, part: int) -> Records:
        """All records of a part."""
        self._files[part].flush()
        self._files[part].seek(0)
        return self.next(part, -1)

    def replace(self, part: int, records: Records) -> None:
        """Put as many other records in place of a part's."""
        self._files[part].seek(0)
        self._files[part].write(records.tobytes())
        self._files[part].seek(0)

    def next(self, part: int, count: int) -> Records:
        """The next records of a part, from its start after `replace`."""
        size = count * self.form.itemsize if count >= 0 else -1
        return np.frombuffer(self._files[part].read(size), dtype=self.form)


@contextmanager
def open_partitions(folder: Path, form: list[tuple[str, str]], count: int) -> Iterator[Partitions]:
    """Empty parts, as nameless files in `folder`, for a block."""
    files: list[BinaryIO] = []
    try:
        for _ in range(count):
            files.append(tempfile.TemporaryFile(dir=folder))  # noqa: SIM115 - closed below
        yield Partitions(form, files)
    finally:
        for file in files:
            file.close()
