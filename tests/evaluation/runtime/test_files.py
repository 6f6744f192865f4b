"""Atomic writes and the cache folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from evaluation.runtime import cache_folder, write_atomic
from evaluation.runtime.files import Content


def write_second(path: Path) -> None:
    path.write_text("second\n", encoding="utf-8")


@pytest.mark.parametrize("content", ["second\n", b"second\n", ["second"], iter(["second"]), write_second])
def test_every_form_of_content_replaces_the_file(tmp_path: Path, content: Content) -> None:
    path = tmp_path / "new" / "file.txt"
    write_atomic(path, "first\n")
    write_atomic(path, content)
    assert path.read_bytes() == b"second\n"
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file_and_no_partial_one(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.write_text("half", encoding="utf-8")
        raise RuntimeError("disk full")

    path = tmp_path / "file.txt"
    write_atomic(path, "first")
    with pytest.raises(RuntimeError):
        write_atomic(path, fail)
    assert path.read_text(encoding="utf-8") == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_private_unless_the_caller_shares_it(tmp_path: Path) -> None:
    previous = os.umask(0o022)
    try:
        write_atomic(tmp_path / "private", "x")
        write_atomic(tmp_path / "shared", "x", private=False)
    finally:
        os.umask(previous)
    assert (tmp_path / "private").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "shared").stat().st_mode & 0o777 == 0o644


def test_the_cache_folder_follows_ascl_cache_then_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASCL_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("ASCL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "system"))
    assert cache_folder() == tmp_path / "system" / "ascl"
