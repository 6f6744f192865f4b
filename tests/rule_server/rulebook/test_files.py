"""Atomic file writes."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from rule_server.rulebook.files import write_atomic


def test_a_file_is_replaced_and_nothing_else_remains(tmp_path: Path) -> None:
    file = tmp_path / "value.json"
    for data in (b"old", b"new"):
        write_atomic(file, data)
        assert file.read_bytes() == data
    assert [path.name for path in tmp_path.iterdir()] == ["value.json"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o644


def test_permissions_are_taken_over_from_another_file(tmp_path: Path) -> None:
    file = tmp_path / "tokens.jsonl"
    file.write_bytes(b"old")
    file.chmod(0o640)
    write_atomic(file, b"new", attributes_of=file.stat())
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_a_failed_write_leaves_the_old_file_and_no_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(handle: int) -> None:
        raise OSError(28, "No space left on device")

    file = tmp_path / "value.json"
    write_atomic(file, b"old")
    monkeypatch.setattr("rule_server.rulebook.files.os.fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(file, b"new")
    assert file.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["value.json"]
