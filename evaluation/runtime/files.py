"""Atomic file writes and the cache folder.

Atomic: a reader sees the old file or the complete new one, never a part."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

Content = str | bytes | Iterable[str] | Callable[[Path], object]
"""Text or bytes, lines without line ends, or a function that writes to the path that it receives."""


def write_atomic(path: Path, content: Content, *, private: bool = True) -> None:
    """Writes a file, flushes it to disk and then renames it into place.

    Creates the folder if needed. Follows a symbolic link and replaces its target. Removes the partial file if
    writing fails.

    Args:
        path: the file to create or replace.
        content: see `Content`.
        private: whether only the owner may read the file (mode 0600); False applies the process's umask.

    Raises:
        OSError: the folder cannot be written, or `path` is not a regular file.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder: name a file", str(path))
    if target.exists() and not target.is_file():  # a rename would replace the device or the pipe by a file
        raise OSError(errno.EINVAL, "it is not a regular file, so it cannot be replaced", str(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
    os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666))
    try:
        _write(partial, content)
        descriptor = os.open(partial, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        partial.replace(target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _write(path: Path, content: Content) -> None:
    if callable(content):
        content(path)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        with path.open("w", encoding="utf-8") as file:
            if isinstance(content, str):
                file.write(content)
            else:
                file.writelines(f"{line}\n" for line in content)


def cache_folder() -> Path:
    """Returns `$ASCL_CACHE`, else the user's cache folder of this system (`~/.cache/ascl` on Linux)."""
    import platformdirs

    if cache := os.environ.get("ASCL_CACHE"):
        return Path(cache).expanduser()
    return Path(platformdirs.user_cache_dir("ascl"))


def named_input(out: Path, inputs: Mapping[str, Path | None]) -> str | None:
    """Returns the name of the input that writing `out` would replace; None if it replaces none of them."""
    target = os.path.realpath(out)
    return next((name for name, path in inputs.items() if path and os.path.realpath(path) == target), None)
