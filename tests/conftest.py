"""Fixtures that every package's tests share, built once for all workers of a test run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from filelock import FileLock

from tests.fakes.rules.artefact import copy_artefact


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A folder that all workers of this run share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if hasattr(request.config, "workerinput") else base


@pytest.fixture(scope="session")
def built_artefact(shared_folder: Path) -> Path:
    """An artefact with the exported encoder and our own rulebook. Tests must not change it.

    The first worker that needs it builds it, and the others wait: the export takes many seconds.
    """
    folder = shared_folder / "built-artefact"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            from rule_server import Settings
            from rule_server.retrieval.build import load_or_build

            partial = folder.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            load_or_build(Settings(artefact=partial, watch=False), lambda _: None, build=True)
            partial.rename(folder)
    return folder


@pytest.fixture
def artefact(built_artefact: Path, tmp_path: Path) -> Path:
    """A copy of the built artefact, which a test may change."""
    return copy_artefact(built_artefact, tmp_path / "artefact")


@pytest.fixture(autouse=True)
def no_terminal_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """Output is not wrapped to the width of the terminal in which the tests run."""
    monkeypatch.delenv("COLUMNS", raising=False)
