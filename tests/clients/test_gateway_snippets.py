"""Runs the guide's snippets for other libraries against the gateway, each with its package installed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.endpoints.scripted import ScriptedEndpoint, call
from tests.fakes.processes.gateway import run_gateway
from tests.fakes.rules.scripted import ScriptedRules

pytestmark = pytest.mark.clients
ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "guides" / "agent.md").read_text(encoding="utf-8")


def snippet(language: str, package: str) -> str:
    found = re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)
    return next(code for code in found if package in code)


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_snippet(code: str, command: list[str | Path], file: Path) -> str:
    """Runs the snippet against a model that consults once. Returns its output."""
    script = [call("burglars"), "They look for easy ones."]
    with ScriptedRules() as rules, ScriptedEndpoint(script, strict=False) as endpoint:  # noqa: SIM117
        with run_gateway(endpoint, rules) as gateway:
            file.write_text(code.replace("http://127.0.0.1:8809/v1", gateway.base_url), encoding="utf-8")
            output = run(*command, file, cwd=file.parent)
    assert len(rules.consultations) == 1
    assert len(endpoint.requests) == 2
    return output


@pytest.mark.parametrize(
    ("module", "package", "suffix"),
    [
        ("litellm", "litellm", "\nprint(reply.choices[0].message.content)\n"),
        ("langchain_openai", "langchain-openai", ""),
    ],
)
def test_a_python_snippet_runs_with_its_package(
    tmp_path: Path, module: str, package: str, suffix: str
) -> None:
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", package, cwd=tmp_path)
    output = run_snippet(snippet("python", module) + suffix, [python], tmp_path / "snippet.py")
    assert not suffix or "They look for easy ones." in output


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_the_vercel_ai_sdk_snippet_runs(tmp_path: Path) -> None:
    run("npm", "install", "--no-audit", "--no-fund", "ai", "@ai-sdk/openai-compatible", cwd=tmp_path)
    code = snippet("ts", "@ai-sdk/openai-compatible") + "\nconsole.log(text);\n"
    assert run_snippet(code, ["node"], tmp_path / "snippet.mjs") == "They look for easy ones.\n"
