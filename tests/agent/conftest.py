"""A rule service that speaks MCP and answers as it is told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.rules.scripted import ScriptedRules


@pytest.fixture
def rules() -> Iterator[ScriptedRules]:
    with ScriptedRules() as service:
        yield service
