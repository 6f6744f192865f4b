"""Atomic, durable file writes."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path


def write_atomic(
    path: Path, data: bytes, *, mode: int = 0o644, attributes_of: os.stat_result | None = None
) -> None:
    """Replaces a file so that a reader sees the old or the new content, even after a power failure.

    Args:
        mode: permissions of the new file.
        attributes_of: status of a file whose permissions, owner and group the new file takes over instead.

    Raises:
        OSError: the file cannot be written, or its owner cannot be set. The old file is then unchanged.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(handle, mode if attributes_of is None else stat.S_IMODE(attributes_of.st_mode))
            if attributes_of is not None:
                new = os.fstat(handle)
                if (attributes_of.st_uid, attributes_of.st_gid) != (new.st_uid, new.st_gid):
                    os.fchown(handle, attributes_of.st_uid, attributes_of.st_gid)
            os.fsync(handle)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_entry(path.parent)


def sync_folder(folder: Path) -> None:
    """Flushes the files of a flat folder and its entries to disk."""
    for file in folder.iterdir():
        sync_entry(file)
    sync_entry(folder)


def sync_entry(path: Path) -> None:
    """Flushes one file, or the entries of one folder, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
