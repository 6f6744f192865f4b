"""Writes a groups file without a log, from columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from trainer.groups.parquet import AdvantageSettings, schema_with_metadata
from trainer.tokens import ModeLosses

DEFAULTS: dict[str, Any] = {
    "kind": "benign_plain",
    "forced": False,
    "weight": 1.0,
    "advantage_ifpo": 0.0,
    "advantage_grpo": 0.0,
    "policy_version": "start",
    "temperature": 1.0,
    "template_options": None,
    "given_messages": None,
    "started_at": None,
    "consultations": 0,
    "failed_consultations": 0,
    "tools": "[]",
    "turns": "[]",
}


def write_groups(path: Path, rows: Iterable[Mapping[str, Any]], *, chunk: int = 256) -> Path:
    """Writes rows, which name the columns that have no entry in `DEFAULTS` and any others. Returns the path.

    Args:
        chunk: rows that are held in memory; all are in one row group per chunk.
    """
    losses = ModeLosses().as_record()
    about = {"settings": AdvantageSettings().model_dump(), "sources": {}, "losses": losses}
    schema = schema_with_metadata(about)
    batch: list[dict[str, Any]] = []
    with pyarrow.parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for row in rows:
            batch.append({"prompt_id": row["group_id"], **DEFAULTS, **row})
            if len(batch) == chunk:
                writer.write_table(pyarrow.Table.from_pylist(batch, schema=schema))
                batch = []
        if batch:
            writer.write_table(pyarrow.Table.from_pylist(batch, schema=schema))
    return path
