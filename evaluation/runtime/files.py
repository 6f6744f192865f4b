"""Write a file so that a reader sees the old one or the whole new one, never a part."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path


def write_atomic(path: Path, lines: Iterable[str]) -> None:
    """Write lines, private to their owner; the folder is made if need be. What a link points to is written.

    Raises:
        OSError: where the folder cannot be written, or something else than a file stands there.
    """
    given, path = path, Path(os.path.realpath(path))
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder, so name a file", str(given))
    if path.exists() and not path.is_file():  # renaming over a device or a pipe would put a file in its place
        raise OSError(errno.EINVAL, "it is no regular file, so it cannot be replaced whole", str(given))
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            for line in lines:
                file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def named_input(out: Path, inputs: Mapping[str, Path | None]) -> str | None:
    """What the input is called that writing `out` would replace; None where there is no such input."""
    target = os.path.realpath(out)
    return next((name for name, path in inputs.items() if path and os.path.realpath(path) == target), None)
