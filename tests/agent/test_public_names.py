"""Public names of the package, and the cost of importing it."""

import subprocess
import sys
from pathlib import Path

import agent
from agent.episode import Consultation, Episode, ErrorRecord, Limits, RuleHit, Turn

ROOT = Path(__file__).resolve().parents[2]


def test_every_public_name_is_listed_in_order_and_can_be_loaded() -> None:
    assert agent.__all__ == sorted(agent.__all__)
    assert set(agent._HOME) == set(agent.__all__)
    for name in agent.__all__:
        assert getattr(agent, name).__module__ == agent._HOME[name]


def test_importing_the_package_loads_neither_the_sdks_nor_pydantic() -> None:
    code = "import sys, agent; print({'openai', 'mcp', 'httpx2', 'pydantic'} & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60, check=True
    )
    assert result.stdout.strip() == "set()"


def test_every_recorded_field_is_explained_in_one_sentence() -> None:
    for model in (Episode, Turn, Consultation, RuleHit, Limits, ErrorRecord):
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}"
            assert field.description.endswith("."), f"{model.__name__}.{name}"
