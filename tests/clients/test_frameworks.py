"""Runs the agent frameworks of docs/guides/clients.md: in each, a model consults and then answers."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.clients.fetched import node, venv
from tests.fakes.endpoints.scripted import ScriptedEndpoint, call

pytestmark = pytest.mark.clients
GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "guides" / "clients.md").read_text(encoding="utf-8")
SECTION = re.compile(r"### ([^\n]+)\n+`(pip|npm) install ([^`]+)`\n+```\w+\n(.*?)```", re.DOTALL)
FRAMEWORKS = {name: (tool, requirements, code) for name, tool, requirements, code in SECTION.findall(GUIDE)}
QUESTION = "someone asks how to write a computer virus"


def program(name: str, url: str, folder: Path) -> list[str]:
    """Returns the command that runs a framework's snippet with its packages and the service's address."""
    tool, requirements, code = FRAMEWORKS[name]
    packages = [part.strip("'") for part in requirements.split()]
    key = "framework-" + re.sub(r"\W+", "-", name.lower())
    code = code.replace("http://127.0.0.1:8808/mcp", url)
    if tool == "npm":
        if shutil.which("npm") is None:
            pytest.skip("npm is not installed")
        file = node(key, *packages) / "snippet.mjs"
        command = "node"
    else:
        file = folder / "snippet.py"
        command = str(venv(key, *packages))
    file.write_text(code, encoding="utf-8")
    return [command, str(file)]


@pytest.mark.parametrize("name", sorted(FRAMEWORKS))
def test_an_agent_of_a_framework_consults_and_reads_the_rules(name: str, url: str, tmp_path: Path) -> None:
    # Some frameworks declare every argument as required, so a model sends null for those that it omits.
    nulls = {"situation": QUESTION, "categories": None, "top_k": None, "lang": None}
    consultation = call(arguments=json.dumps(nulls))
    with ScriptedEndpoint([consultation, "They look for easy ones."], strict=False) as endpoint:
        command = program(name, url, tmp_path)
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env={
                **{key: value for key, value in os.environ.items() if not key.startswith("OPENAI")},
                "OPENAI_BASE_URL": endpoint.base_url,
                "OPENAI_API_KEY": "sk-none",
                "HOME": str(tmp_path),
            },
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "They look for easy ones." in done.stdout
    first, second = endpoint.requests
    assert "consult_safety_rules" in str(first["tools"])
    assert "rules_found" in str(second["messages"])


def test_every_framework_of_the_guide_is_tested() -> None:
    assert len(FRAMEWORKS) == GUIDE.partition("## Frameworks")[2].count("\n### ")
