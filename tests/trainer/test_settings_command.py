"""`ascl-train settings STAGE` lists what a stage accepts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from trainer.cli import app


def settings(stage: str) -> dict[str, dict[str, Any]]:
    result = CliRunner().invoke(app, ["settings", stage, "--json"])
    assert result.exit_code == 0
    return {row["name"]: row for row in json.loads(result.stdout)}


@pytest.mark.parametrize("stage", ["sft", "logged", "online"])
def test_every_setting_has_a_type_a_default_and_a_meaning(stage: str) -> None:
    for row in settings(stage).values():
        assert row["type"]
        assert row["meaning"]
        assert row["required"] is False or row["default"] is None


def test_settings_of_a_stage_include_those_of_the_trainer_that_it_builds_on() -> None:
    rows = settings("online")
    assert rows["model"]["required"]
    assert (rows["method"]["type"], rows["method"]["default"]) == ("ifpo | grpo | grpo+cost", "ifpo")
    assert rows["rules_url"]["default"] == "http://127.0.0.1:8808/mcp"
    assert "rules" not in rows
    assert {rows[name]["origin"] for name in ("alpha", "vllm_mode", "weight_decay")} == {
        "ascl", "trl", "transformers"
    }  # fmt: skip


def test_the_list_fits_eighty_columns() -> None:
    result = CliRunner().invoke(app, ["settings", "sft"], env={"COLUMNS": "80"})
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "learning_rate" in result.stdout
