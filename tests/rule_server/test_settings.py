"""Settings: which hosts count as this machine, and where the cache folder is."""

from __future__ import annotations

from pathlib import Path

import pytest

from rule_server import Settings
from rule_server.settings import is_loopback


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST", "127.0.0.1", "127.8.9.10", "::1", "[::1]", "::ffff:127.0.0.1"],
)
def test_loopback_names_and_addresses_are_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    [
        *("127.example.org", "127.0.0.1.example.org", "localhost.example.org", "example.org"),
        *("0.0.0.0", "::", "10.0.0.1", "::ffff:10.0.0.1", "[127.0.0.1", "127.1", ""),
    ],
)
def test_other_names_and_addresses_are_not_this_machine(host: str) -> None:
    assert not is_loopback(host)


def test_a_host_name_that_begins_like_a_loopback_address_exposes_the_service() -> None:
    assert Settings(host="127.example.org").exposed
    assert not Settings(host="127.0.0.1").exposed


def test_the_index_is_in_the_cache_folder_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ASCL_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Settings().artefact == tmp_path / ".cache" / "ascl" / "rules"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert Settings().artefact == tmp_path / "xdg" / "ascl" / "rules"
    monkeypatch.setenv("ASCL_CACHE", "~/elsewhere")
    assert Settings().artefact == tmp_path / "elsewhere" / "rules"


def test_an_address_in_brackets_is_the_address() -> None:
    assert Settings(host="[::1]").host == "::1"
    assert not Settings(host="[::1]").exposed
    assert Settings(host="[::]").exposed
