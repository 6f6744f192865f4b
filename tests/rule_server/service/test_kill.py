"""A service that is killed while it answers is ready again from what it built, and its audit log is whole."""

from __future__ import annotations

import itertools
import json
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2

from rule_server.api.auth import new_token
from tests.fakes.rules.service_process import run_rule_service

CALLERS = 16
KILLS = 3


def test_killed_under_load_it_lost_no_line_that_a_caller_was_answered_for(
    artefact: Path, rules: Path, tmp_path: Path
) -> None:
    log, audit, tokens = tmp_path / "serve.log", tmp_path / "audit.jsonl", tmp_path / "tokens.jsonl"
    header = {"Authorization": f"Bearer {new_token(tokens, 'load', ['consult'], 'now')}"}
    settings = {
        "audit_file": str(audit),
        "audit_text": "true",
        "tokens_file": str(tokens),
        "rate_limit": "100000",
        "rate_burst": "100000",
        "threads": "1",
    }
    numbers = itertools.count()
    answered: list[str] = []
    dead = threading.Event()

    def call(url: str) -> None:
        with httpx2.Client(base_url=url, headers=header, timeout=20) as client:
            while not dead.is_set():
                question = f"someone asks for computer virus number {next(numbers)}"
                try:
                    answer = client.post("/v1/consult", json={"situation": question})
                except httpx2.TransportError:
                    return
                assert answer.status_code == 200
                answered.append(question)

    chance = random.Random(7)
    for _ in range(KILLS):
        dead.clear()
        before = len(answered)
        with run_rule_service(rules, artefact, log, **settings) as (url, process):
            with ThreadPoolExecutor(CALLERS) as pool:
                calls = [pool.submit(call, url) for _ in range(CALLERS)]
                while len(answered) < before + 100:
                    time.sleep(0.01)
                time.sleep(chance.random() / 4)
                process.send_signal(signal.SIGKILL)
                dead.set()
            for each in calls:
                each.result()
    with run_rule_service(rules, artefact, log, **settings) as (url, _):
        digest = httpx2.get(f"{url}/readyz").json()["digest"]

    whole, torn = [], 0
    for line in audit.read_text(encoding="utf-8").splitlines():
        try:
            whole.append(json.loads(line))
        except json.JSONDecodeError:
            torn += 1
    assert torn <= KILLS
    logged = [line["situation"] for line in whole]
    assert len(set(logged)) == len(logged)
    assert set(answered) <= set(logged)
    # At most one question of each caller was answered without the caller having heard of it.
    assert len(logged) - len(answered) <= KILLS * CALLERS
    assert {line["digest"] for line in whole} == {digest}
    # The first start embeds the rules that are new; after a kill everything is found as it was.
    assert log.read_text(encoding="utf-8").count("embedding") == 1
