"""The real encoder, opened once per process, and services with small rulebooks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import tests.fakes.rules.cached_encoder  # noqa: F401
from rule_server import OnnxEncoder, RuleService, Settings
from rule_server.api.app import create_app
from rule_server.retrieval.artefact import Artefact
from rule_server.retrieval.build import load_or_build
from rule_server.retrieval.encoders.paired import PairedEncoder
from tests.fakes.processes.live_server import LiveServer
from tests.fakes.rules.rulebooks import rule, write_rulebook


@pytest.fixture(scope="session")
def paired_encoder(built_artefact: Path) -> PairedEncoder:
    """Both encoders of the built artefact, exact on every processor. All tests of a process share them, since
    they take 250 MB."""
    store = Artefact(built_artefact)
    current = store.current()
    assert current is not None
    return store.encoder(current.encoder, threads=2, precision="exact")


@pytest.fixture(scope="session")
def encoder(paired_encoder: PairedEncoder) -> OnnxEncoder:
    """The English encoder of the built artefact."""
    return paired_encoder.english


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """A rulebook with two categories: a rule that declines malware, and two rules that answer."""
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
def service(
    settings: Settings, paired_encoder: PairedEncoder, monkeypatch: pytest.MonkeyPatch
) -> RuleService:
    with monkeypatch.context() as patch:
        patch.setattr(Artefact, "encoder", lambda self, fingerprint, threads, precision: paired_encoder)
        return RuleService(load_or_build(settings, lambda _: None), settings)


@pytest.fixture
def served(service: RuleService) -> Iterator[LiveServer]:
    """The whole app over real HTTP, warmed up."""
    with LiveServer(create_app(service)) as running:
        yield running
