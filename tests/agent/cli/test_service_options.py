"""`--system FILE` and `--rules-url`, with the name that it had before."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from agent.cli import app
from agent.cli.options import MAX_SYSTEM_BYTES
from agent.episode import read_log
from tests.fakes.endpoints.scripted import ScriptedEndpoint
from tests.fakes.episodes.agent_run import CLOSED_URL
from tests.fakes.rules.scripted import ScriptedRules

TEXT = "Answer in one word.\n"


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "160"})


def chat(rules_option: str, rules: str, log: Path, *more: object) -> Result:
    with ScriptedEndpoint(["4."]) as endpoint:
        services = ["--base-url", endpoint.base_url, "--model", "scripted", rules_option, rules]
        return invoke("chat", "2 + 2?", *services, "--log", log, *more)


def test_the_system_text_comes_from_a_file_and_its_digest_is_recorded(
    rules: ScriptedRules, tmp_path: Path
) -> None:
    file = tmp_path / "system.txt"
    file.write_text(TEXT, encoding="utf-8")
    for name, more in (("own", ["--system", file]), ("packaged", [])):
        assert chat("--rules-url", rules.url, tmp_path / f"{name}.jsonl", *more).exit_code == 0
    own, packaged = (read_log(tmp_path / f"{name}.jsonl").episodes[0] for name in ("own", "packaged"))
    assert own.messages[0] == {"role": "system", "content": TEXT}
    assert own.prompt_digest != packaged.prompt_digest


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b" \n", "is empty: write the system text into it, or leave --system out"),
        (b"\xff", "is not UTF-8 text"),
        (b"a" * (MAX_SYSTEM_BYTES + 1), "is larger than 256 KiB"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_a_system_file_that_cannot_be_used_is_refused(
    content: bytes | None, problem: str, tmp_path: Path
) -> None:
    file = tmp_path / "system.txt"
    if content is not None:
        file.write_bytes(content)
    result = invoke("chat", "2 + 2?", "--base-url", f"{CLOSED_URL}/v1", "--model", "m", "--system", file)
    assert result.exit_code == 2
    assert f"ascl-agent: --system {file} {problem}" in result.stderr


@pytest.mark.parametrize("option", ["--rules-url", "--rules"])
def test_the_rule_service_has_one_name_and_the_old_one_still_works(
    option: str, rules: ScriptedRules, tmp_path: Path
) -> None:
    assert chat(option, rules.url, tmp_path / "log.jsonl").exit_code == 0
    assert read_log(tmp_path / "log.jsonl").episodes[0].rulebook_digest
    help_text = invoke("chat", "--help").output
    assert "--rules-url" in help_text
    assert "--rules " not in help_text
