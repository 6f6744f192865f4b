"""Detects edits of the rules folders, by notifications of the file system or by polling."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from pathlib import Path

from rule_server.rulebook import is_ignored

WATCH_CHECK_SECONDS = 1.0
"""Interval in seconds of polling, and of the check whether a watched folder was replaced."""
NETWORK_FILE_SYSTEMS = {"9p", "afs", "ceph", "cifs", "lustre", "nfs", "nfs4", "smb3", "smbfs"}
"""File systems that send no notification of an edit made on another machine."""
NETWORK_FUSE_FILE_SYSTEMS = ("fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.s3fs", "fuse.rclone")


def edits(folders: Sequence[Path], *, poll: bool) -> AsyncGenerator[None, None]:
    """Yields once when the watch has started and after each edit; ends when a folder was replaced.

    Args:
        poll: compare the files every second, even where the file system sends notifications.

    Raises:
        Exception: the folders cannot be watched.
    """
    if poll or any(needs_polling(folder) for folder in folders):
        return _poll(folders)
    return _notifications(folders)


def is_followed(path: Path, roots: Iterable[Path]) -> bool:
    """Returns whether an edit of a path counts: below a root, no part of it has an ignored name.

    The names of the roots and of the folders above them do not matter.
    """
    below = [path.relative_to(root).parts for root in roots if path.is_relative_to(root)]
    return not below or any(not any(map(is_ignored, parts)) for parts in below)


def needs_polling(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> bool:
    """Returns whether a folder is on a network file system. False where the mounts are not known."""
    try:
        path, table = folder.resolve(), mounts.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return False
    longest, kind = -1, ""
    for line in table.splitlines():
        _, point, name, *_ = [*line.split(" "), "", "", ""]
        point = point.replace("\\040", " ")
        if path.is_relative_to(point) and len(point) >= longest:  # a later mount hides an earlier one
            longest, kind = len(point), name
    return kind in NETWORK_FILE_SYSTEMS or kind.startswith(NETWORK_FUSE_FILE_SYSTEMS)


async def _notifications(folders: Sequence[Path]) -> AsyncGenerator[None, None]:
    from watchfiles import awatch

    inodes, roots = [_inode(folder) for folder in folders], {folder.absolute() for folder in folders}
    batches = awatch(
        *folders,
        watch_filter=lambda _, path: is_followed(Path(path), roots),
        debounce=200,
        step=50,
        rust_timeout=int(WATCH_CHECK_SECONDS * 1000),
        yield_on_timeout=True,
    )
    started = False
    async with aclosing(batches):
        async for batch in batches:
            if batch or not started:  # the first reload picks up edits made before the watch started
                started = True
                yield
            # A folder that is removed and created again may get the same inode number.
            removed = any(Path(path) in roots for _, path in batch)
            if removed or [_inode(folder) for folder in folders] != inodes:
                return


async def _poll(folders: Sequence[Path]) -> AsyncGenerator[None, None]:
    before = await asyncio.to_thread(_statuses, folders)
    yield
    while True:
        await asyncio.sleep(WATCH_CHECK_SECONDS)
        after = await asyncio.to_thread(_statuses, folders)
        if after != before:
            before = after
            yield


def _statuses(folders: Sequence[Path]) -> dict[str, tuple[int, ...]]:
    """Returns an identifier of the content of every followed file and folder, by path. Raises OSError."""
    statuses: dict[str, tuple[int, ...]] = {}
    for root in folders:
        root.stat()
        for folder, folders_below, files in os.walk(root):
            folders_below[:] = [name for name in folders_below if not is_ignored(name)]
            paths = [folder, *(f"{folder}/{name}" for name in files if not is_ignored(name))]
            for path in paths:
                try:
                    status = os.lstat(path)
                except FileNotFoundError:  # removed since it was listed
                    continue
                times = (status.st_mtime_ns, status.st_ctime_ns)
                statuses[path] = (status.st_dev, status.st_ino, status.st_size, *times)
    return statuses


def _inode(folder: Path) -> tuple[int, int] | None:
    """Returns device and inode, which a watch is bound to. Another folder of the same name has others."""
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
