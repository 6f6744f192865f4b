"""The OpenAPI document is complete: schemathesis finds no undocumented response."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rule_server.api.auth import new_token
from tests.fakes.rules.toy_service import serve_toy

EXAMPLES = os.environ.get("ASCL_API_EXAMPLES", "15")
"""Requests generated per route; `make api-fuzz` generates many more."""


@pytest.mark.parametrize("guarded", [False, True], ids=["open", "with tokens"])
def test_generated_requests_get_only_documented_responses(tmp_path: Path, guarded: bool) -> None:
    tokens = tmp_path / "tokens.jsonl"
    auth: dict[str, str] = {}
    settings: dict[str, object] = {}
    if guarded:
        auth = {"Authorization": f"Bearer {new_token(tokens, 'x', ['consult', 'read', 'admin'], 'now')}"}
        settings = {"tokens_file": tokens, "rate_limit": 1e6, "rate_burst": 1e6}
    with serve_toy(tmp_path, **settings) as served:
        header = [part for name, value in auth.items() for part in ("--header", f"{name}: {value}")]
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"{served.origin}/openapi.json", *header]
        # The document does not list the categories of the rulebook, so generated ones are correctly refused.
        checks = ["--checks", "all", "--exclude-checks", "positive_data_acceptance", "--warnings", "off"]
        bounds = ["--max-examples", EXAMPLES, "--generation-database", "none", "--seed", "1"]
        run = subprocess.run(
            [*command, *checks, *bounds],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=1200,
            check=False,
        )
        assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
        tested = re.search(r"Tested:\s+(\d+)", run.stdout)
        assert tested is not None
        assert int(tested[1]) == sum(
            len(path) for path in served.client.get("/openapi.json", headers=auth).json()["paths"].values()
        )
        assert served.client.get("/readyz").status_code == 200
