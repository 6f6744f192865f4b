"""`--help` of every command: no types for on/off options, a named default for each option, an example."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

COMMANDS = {
    "ascl-rules": "rule_server.cli.app",
    "ascl-agent": "agent.cli.app",
    "ascl-eval": "evaluation.cli.app",
    "ascl-train": "trainer.cli.app",
}
MAX_UNGROUPED = 12


def walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    if hasattr(command, "commands"):
        for word, child in command.commands.items():
            yield from walk(f"{name} {word}", child)
    else:
        yield name, command


ALL = [
    pytest.param(program, name, command, id=name)
    for program, module in COMMANDS.items()
    for name, command in walk(program, get_command(import_module(module).app))
]


def help_of(program: str, name: str, width: int = 200) -> str:
    app = import_module(COMMANDS[program]).app
    arguments = [*name.split()[1:], "--help"]
    result = CliRunner().invoke(app, arguments, prog_name=program, env={"COLUMNS": str(width)})
    assert result.exit_code == 0
    return result.output


@pytest.mark.parametrize(("program", "name", "command"), ALL)
def test_help_names_types_only_of_values_and_gives_an_example(program: str, name: str, command: Any) -> None:
    text = help_of(program, name)
    assert "bool" not in text
    assert "list[" not in text.partition("─ Options")[2]
    assert "range>" not in text
    assert f"Example: {name}" in text.replace("\n", " ")


@pytest.mark.parametrize("program", COMMANDS)
def test_help_of_the_program_names_no_type_for_its_options(program: str) -> None:
    assert "<bool>" not in help_of(program, program)


@pytest.mark.parametrize(("program", "name", "command"), ALL)
def test_every_option_that_may_be_left_out_names_its_default(program: str, name: str, command: Any) -> None:
    silent = [
        option.opts[0]
        for option in command.params
        if option.param_type_name == "option"
        and not (option.required or option.is_flag or option.envvar)
        and option.default in (None, ())
        and not re.search(r"default|unset|overrides the settings file", option.help or "")
    ]
    assert silent == []


@pytest.mark.parametrize(("program", "name", "command"), ALL)
def test_many_options_stand_in_groups(program: str, name: str, command: Any) -> None:
    ungrouped = [p for p in command.params if p.param_type_name == "option" and p.rich_help_panel is None]
    assert len(ungrouped) <= MAX_UNGROUPED


@pytest.mark.parametrize(("program", "name", "command"), ALL)
def test_help_fits_a_terminal_of_eighty_columns(program: str, name: str, command: Any) -> None:
    assert max(map(len, help_of(program, name, width=80).splitlines())) <= 80
