"""Runs the official MCP conformance suite against the service. `conformance.yaml` lists what applies."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
import yaml

from tests.clients.fetched import command, node

pytestmark = [
    pytest.mark.clients,
    pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed"),
]
# The suite needs a newer node than distributions ship.
SUITE = ("@modelcontextprotocol/conformance@0.2.0-alpha.12", "node@24.21.0")
LISTS = yaml.safe_load(Path(__file__).with_name("conformance.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("revision", ["2025-11-25", "2026-07-28"])
def test_every_scenario_that_applies_passes(revision: str, url: str, tmp_path: Path) -> None:
    suite = command(node("conformance", *SUITE), "conformance")
    done = subprocess.run(
        [*map(str, suite), "server", "--url", url, "--requirements", revision, "--output-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    results = {
        scenario_of(file.parent): json.loads(file.read_text()) for file in tmp_path.glob("*/checks.json")
    }
    assert len(results) > 20, done.stdout + done.stderr
    applies, rest = LISTS["applies"], LISTS["does_not_apply"]
    assert not set(applies) & set(rest)
    unlisted = sorted(set(results) - set(applies) - set(rest))
    assert not unlisted, f"list these new scenarios in conformance.yaml: {unlisted}"
    passed: Counter[str] = Counter()
    for name, checks in results.items():
        if name in applies and revision not in (applies[name] or {}):
            excepted = (applies[name] or {}).get("except", {})
            failures = [check for check in checks if check["status"] == "FAILURE"]
            failed = [check for check in failures if check["id"] not in excepted]
            assert not failed, f"{name}: {[(check['id'], check.get('errorMessage')) for check in failed]}"
            passed[name] = sum(check["status"] == "SUCCESS" for check in checks)
            assert passed[name] > 0, f"{name} made no check"
    print(f"{revision}: {passed.total()} checks in {len(passed)} scenarios: {dict(passed)}")


def test_every_listed_scenario_is_in_the_suite() -> None:
    every = [*LISTS["applies"], *LISTS["does_not_apply"]]
    suite = command(node("conformance", *SUITE), "conformance")
    listed = subprocess.run([*map(str, suite), "list"], capture_output=True, text=True, check=True).stdout
    assert not [name for name in every if f"- {name} [" not in listed]


def scenario_of(folder: Path) -> str:
    """Extracts the scenario from a result folder's name, server-NAME-TIME."""
    match = re.fullmatch(r"server-(.+)-\d{4}-\d\d-\d\dT[\d-]+Z", folder.name)
    assert match, folder
    return match[1]
