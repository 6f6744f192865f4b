"""The real encoder, exported once for all tests, and services over small rulebooks."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from rule_server import OnnxEncoder, RuleService, Settings
from rule_server.api.app import create_app
from rule_server.retrieval.artefact import Artefact
from rule_server.retrieval.build import load_or_build
from rule_server.retrieval.onnx_export import export_encoder
from tests.fakes.processes.live_server import LiveServer
from tests.fakes.rules.rulebooks import rule, write_rulebook


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artefact that holds the encoder and our own rulebook."""
    folder = tmp_path_factory.mktemp("built") / "artefact"
    load_or_build(Settings(artefact=folder, watch=False), notify=lambda _: None, build=True)
    return folder


@pytest.fixture(scope="session")
def encoder(built: Path) -> OnnxEncoder:
    return export_encoder(Artefact(built), None, threads=2)


@pytest.fixture
def artefact(built: Path, tmp_path: Path) -> Path:
    """A copy of the built artefact, to be changed at will."""
    return Path(shutil.copytree(built, tmp_path / "artefact"))


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """A rulebook of two categories: cyber declines malware, and answers about repair; a pan may be used."""
    return write_rulebook(
        tmp_path / "rules",
        rule("cyber.malware", title="Malicious software", applies_when="Someone asks for a computer virus."),
        rule("cyber.repair", stance="answer", title="Repairing computers", not_when=None),
        rule("kitchen.knives", stance="answer", title="Kitchen knives", not_when=None),
    )


@pytest.fixture
def settings(artefact: Path, rules: Path) -> Settings:
    return Settings(dir=rules, artefact=artefact, watch=False)


@pytest.fixture
def service(settings: Settings) -> RuleService:
    return RuleService(load_or_build(settings, notify=lambda _: None), settings)


@pytest.fixture
def served(service: RuleService) -> Iterator[LiveServer]:
    """The whole app over real HTTP, warm."""
    with LiveServer(create_app(service)) as running:
        yield running
