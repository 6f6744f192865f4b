"""Fixed-size records on disk, partitioned by a key, so that a large log needs little memory.

Advantages need all rewards of a group at the same time, but its episodes may be anywhere in the log. All
records of a key go to the same partition, in input order. Partitions stay small up to `MAX_PARTITIONS` of
them.
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
"""Each partition is an open file. For a log above 4 GiB the partitions grow instead: a few dozen bytes for
one episode in 64."""

Records = npt.NDArray[np.void]


def partition_count(size: int, partition_size: int) -> int:
    """Returns the number of partitions of about `partition_size` that hold `size`."""
    return min(max(-(-size // partition_size), 1), MAX_PARTITIONS)


class Partitions:
    """Records of one dtype in P partitions, each a temporary file."""

    def __init__(self, fields: list[tuple[str, str]], files: list[BinaryIO]) -> None:
        self.dtype = np.dtype(fields)
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def partition_of(self, key: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
        """Returns (N,) the partition index of each key."""
        return (key.view(np.uint64) % np.uint64(len(self))).astype(np.intp)

    def add(self, key: npt.NDArray[np.int64], **columns: Any) -> npt.NDArray[np.int64]:
        """Appends N records to the partitions of their keys. Returns (P,) the number appended to each."""
        records = np.empty(len(key), dtype=self.dtype)
        for name, values in columns.items():
            records[name] = values
        index = self.partition_of(key)
        counts = np.bincount(index, minlength=len(self))
        ordered = records[np.argsort(index, kind="stable")]
        for file, chunk in zip(self._files, np.split(ordered, np.cumsum(counts)[:-1]), strict=True):
            file.write(chunk.tobytes())
        return counts

    def read(self, index: int) -> Records:
        """Returns all records of a partition."""
        self._files[index].flush()
        self._files[index].seek(0)
        return self.read_next(index, -1)

    def replace(self, index: int, records: Records) -> None:
        """Overwrites a partition with the same number of records, and rewinds it."""
        self._files[index].seek(0)
        self._files[index].write(records.tobytes())
        self._files[index].seek(0)

    def read_next(self, index: int, count: int) -> Records:
        """Returns the next `count` records of a partition after `replace` rewound it; -1 for the rest."""
        size = count * self.dtype.itemsize if count >= 0 else -1
        return np.frombuffer(self._files[index].read(size), dtype=self.dtype)


@contextmanager
def open_partitions(folder: Path, fields: list[tuple[str, str]], count: int) -> Iterator[Partitions]:
    """Opens empty partitions as unnamed temporary files in `folder`; closes them after the block."""
    files: list[BinaryIO] = []
    try:
        for _ in range(count):
            files.append(tempfile.TemporaryFile(dir=folder))  # noqa: SIM115 - closed below
        yield Partitions(fields, files)
    finally:
        for file in files:
            file.close()
