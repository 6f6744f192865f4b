"""Options and habits that all four commands share."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest

COMMANDS = ("rule_server", "agent", "evaluation", "trainer")


def run(package: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"{package}.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("package", COMMANDS)
def test_every_command_states_its_version(package: str) -> None:
    done = run(package, "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"ascl {version('ascl')}\n", "")


@pytest.mark.parametrize("package", COMMANDS)
def test_every_command_completes_in_the_shell(package: str) -> None:
    assert "--install-completion" in run(package, "--help").stdout


@pytest.mark.parametrize("package", COMMANDS)
def test_an_option_cannot_be_abbreviated(package: str) -> None:
    done = run(package, "--vers")
    assert done.returncode == 2
    assert "No such option" in done.stderr


@pytest.mark.parametrize(
    "words",
    [("rule_server", "settings"), ("agent", "quirks"), ("evaluation", "--help"), ("trainer", "--help")],
)
def test_a_reader_that_leaves_early_is_no_error(words: tuple[str, str]) -> None:
    command = [sys.executable, "-m", f"{words[0]}.cli", words[1]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
