"""Offers the rule service with our own rulebook to outside clients, over HTTP and stdio."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rule_server.retrieval.build import load_or_build
from rule_server.settings import Settings, packaged_rules
from tests.clients.fetched import CACHE
from tests.fakes.rules.service_process import run_rule_service


@pytest.fixture(scope="session")
def artefact() -> Path:
    """An index of our own rulebook. Only parts that changed since the last run are built again."""
    folder = CACHE / "artefact"
    load_or_build(Settings(artefact=folder, watch=False), notify=lambda _: None, build=True)
    return folder


@pytest.fixture(scope="session")
def url(artefact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a running service's MCP endpoint."""
    with run_rule_service(packaged_rules(), artefact, tmp_path_factory.mktemp("clients") / "serve.log") as (
        address,
        _,
    ):
        yield f"{address}/mcp"


@pytest.fixture(scope="session")
def stdio(artefact: Path) -> list[str]:
    """The command that serves a client over stdio."""
    return [sys.executable, "-m", "rule_server.cli", "stdio", "--artefact", str(artefact), "--no-watch"]
