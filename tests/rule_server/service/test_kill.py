"""A killed service restarts from its stored index, and its audit log has every answered question."""

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


def test_a_service_killed_under_load_has_logged_every_answered_question(
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
    stopped = threading.Event()

    def call(url: str) -> None:
        with httpx2.Client(base_url=url, headers=header, timeout=20) as client:
            while not stopped.is_set():
                question = f"someone asks for computer virus number {next(numbers)}"
                try:
                    answer = client.post("/v1/consult", json={"situation": question})
                except httpx2.TransportError:
                    return
                assert answer.status_code == 200
                answered.append(question)

    chance = random.Random(7)
    for _ in range(KILLS):
        stopped.clear()
        before = len(answered)
        with run_rule_service(rules, artefact, log, **settings) as (url, process):
            with ThreadPoolExecutor(CALLERS) as pool:
                calls = [pool.submit(call, url) for _ in range(CALLERS)]
                while len(answered) < before + 100:
                    time.sleep(0.01)
                time.sleep(chance.random() / 4)
                process.send_signal(signal.SIGKILL)
                stopped.set()
            for each in calls:
                each.result()
    with run_rule_service(rules, artefact, log, **settings) as (url, _):
        digest = httpx2.get(f"{url}/readyz").json()["digest"]

    entries, torn = [], 0
    for line in audit.read_text(encoding="utf-8").splitlines():
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            torn += 1
    assert torn <= KILLS
    logged = [line["situation"] for line in entries]
    assert len(set(logged)) == len(logged)
    assert set(answered) <= set(logged)
    # Each kill loses at most one response per caller.
    assert len(logged) - len(answered) <= KILLS * CALLERS
    assert {line["digest"] for line in entries} == {digest}
    # The first start embeds the rules; the starts after a kill reuse them.
    assert log.read_text(encoding="utf-8").count("embedding") == 1
