"""Fixtures of the agent's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.rules.scripted import ScriptedRules


@pytest.fixture
def rules() -> Iterator[ScriptedRules]:
    """A rule service that speaks MCP and returns scripted answers."""
    with ScriptedRules() as service:
        yield service
