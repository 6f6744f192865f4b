"""The guide for agent developers: its snippets run, and its flags and headers exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agent.cli import app
from tests.fakes.endpoints.scripted import ScriptedEndpoint, call
from tests.fakes.processes.gateway import run_gateway
from tests.fakes.rules.scripted import ScriptedRules

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "guides" / "agent.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
CURL = re.findall(r"^curl .*?(?=\n```)", GUIDE, re.DOTALL | re.MULTILINE)
CONSULTING = [call("burglars"), "They look for easy ones."]


def run(code: str, *replaced: tuple[str, str], shell: bool = False) -> str:
    for old, new in replaced:
        assert old in code
        code = code.replace(old, new)
    command = ["bash", "-c", code] if shell else [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("package", ["openai", "litellm", "langchain_openai"])
def test_a_snippet_for_the_gateway_runs(package: str) -> None:
    pytest.importorskip(package)
    (code,) = (
        snippet for snippet in PYTHON if f" {package} import" in snippet or f"import {package}" in snippet
    )
    with ScriptedRules() as rules, ScriptedEndpoint(CONSULTING, strict=False) as endpoint:  # noqa: SIM117
        with run_gateway(endpoint, rules) as gateway:
            run(code, ("http://127.0.0.1:8809/v1", gateway.base_url))
    assert len(rules.consultations) == 1
    assert len(endpoint.requests) == 2


@pytest.mark.parametrize("line", CURL)
def test_a_curl_line_runs_and_shows_the_headers(line: str) -> None:
    with ScriptedRules() as rules, ScriptedEndpoint(CONSULTING, strict=False) as endpoint:  # noqa: SIM117
        with run_gateway(endpoint, rules) as gateway:
            stdout_text = run(line, ("http://127.0.0.1:8809/v1", gateway.base_url), shell=True)
    assert "x-ascl-consulted: yes" in stdout_text
    assert "They look for easy ones." in stdout_text


def test_the_library_snippet_runs() -> None:
    code, _ = (snippet for snippet in PYTHON if "from agent import" in snippet)
    with ScriptedRules() as rules, ScriptedEndpoint(CONSULTING) as endpoint:
        addresses = ("http://127.0.0.1:8000/v1", endpoint.base_url), ("http://127.0.0.1:8808/mcp", rules.url)
        stdout_text = run(code, *addresses)
    assert stdout_text.startswith("consult They look for easy ones.")


def test_the_snippet_with_a_tool_of_ones_own_runs() -> None:
    _, code = (snippet for snippet in PYTHON if "from agent import" in snippet)
    asked = call(arguments='{"city": "Oslo"}', name="get_time")
    with ScriptedRules() as rules, ScriptedEndpoint([asked, "It is noon."]) as endpoint:
        addresses = ("http://127.0.0.1:8000/v1", endpoint.base_url), ("http://127.0.0.1:8808/mcp", rules.url)
        assert run(code, *addresses) == "It is noon.\n"
    assert endpoint.requests[1]["messages"][-1]["content"] == "12:00 in Oslo"


def test_every_command_and_flag_of_the_guide_exists() -> None:
    helps = {}
    for verb in set(re.findall(r"ascl-agent ([a-z]+)", GUIDE)):
        helps[verb] = CliRunner().invoke(app, [verb, "--help"], env={"COLUMNS": "200"})
        assert helps[verb].exit_code == 0, verb
    flags = set(re.findall(r"(--[a-z][a-z-]+)", "".join(result.output for result in helps.values())))
    foreign = {"--enable-auto-tool-choice", "--tool-call-parser", "--keep-forced", "--arm"}
    foreign |= {"--adapter", "--dir", "--device", "--dtype", "--default-top-k"}
    assert set(re.findall(r"(--[a-z][a-z-]+)", GUIDE)) - foreign <= flags


def test_every_header_that_the_gateway_sends_is_explained() -> None:
    code = (ROOT / "agent" / "gateway" / "exchange" / "response_headers.py").read_text(encoding="utf-8")
    assert set(re.findall(r'"(x-ascl-[a-z-]+)"', code)) == set(
        re.findall(r"^\| `(x-ascl-[a-z-]+)`", GUIDE, re.MULTILINE)
    )
