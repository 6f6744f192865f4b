"""Lists of numbers in an Arrow file: written once, in batches, and memory-mapped by every process."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.ipc

BATCH_ROWS = 16
"""Rows of a batch; only the last one of a file may have fewer."""
REMAP_AFTER = 2048
"""Reads after which a file is mapped again: until then, the pages read count as memory of the process."""
TOKENS = pyarrow.schema(
    {
        "prompt_ids": pyarrow.list_(pyarrow.int32()),
        "completion_ids": pyarrow.list_(pyarrow.int32()),
        "loss_mask": pyarrow.list_(pyarrow.int8()),
        "logprobs": pyarrow.list_(pyarrow.float32()),  # null where they must be computed
    }
)
LOGPROBS = pyarrow.schema({"logprobs": pyarrow.list_(pyarrow.float32())})

Row = dict[str, Any]


def write_token_file(path: Path, schema: pyarrow.Schema, rows: Iterable[Row]) -> None:
    """Writes rows, holding one batch of them in memory.

    Raises:
        OSError: the file cannot be written.
    """
    remaining = iter(rows)
    with pyarrow.OSFile(str(path), "wb") as sink, pyarrow.ipc.new_file(sink, schema) as writer:
        while batch := list(islice(remaining, BATCH_ROWS)):
            writer.write_batch(pyarrow.RecordBatch.from_pylist(batch, schema=schema))


class TokenFile:
    """A file of `write_token_file`, memory-mapped: rows are read from disk, or the page cache, when used."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reader: Any = None
        self._reads = 0

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_reader": None, "_reads": 0}  # a mapping cannot be sent to a process

    def __getitem__(self, index: int) -> Row:
        """Returns a row: lists of numbers, or None, by column."""
        if self._reader is None or self._reads >= REMAP_AFTER:
            self._reader, self._reads = pyarrow.ipc.open_file(pyarrow.memory_map(str(self.path))), 0
        self._reads += 1
        batch = self._reader.get_batch(index // BATCH_ROWS)
        row: Row = {}
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            value = column[index % BATCH_ROWS]
            row[name] = value.values.to_numpy(zero_copy_only=False).tolist() if value.is_valid else None
        return row
