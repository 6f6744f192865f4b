"""Kills a run with 32 concurrent episodes at random moments, and repeats the same command.

An acknowledged episode must stay in the log, no sample may be logged twice, and no journalled reply or
consultation may be requested again. Five kills in the suite, a hundred with `make kills`.
"""

from __future__ import annotations

import json
import random
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from agent.episode import call_ids, read_log, validate_log
from tests.fakes.endpoints.scripted import ScriptedEndpoint, call
from tests.fakes.processes.preloaded_agent import PreloadedAgent
from tests.fakes.rules.scripted import ScriptedRules

CONCURRENCY = 32
SAMPLES = 2
MAX_SECONDS = 120.0
"""Maximum seconds that a run may take to make progress."""

Turn = tuple[str, int, int]
"""Prompt id, sample index and turn index."""


def consult_then_answer(body: dict[str, Any]) -> Any:
    """Consults once for each sample, with a unique situation, and then answers."""
    last = body["messages"][-1]
    if last["role"] == "user":
        return call(f"{last['content']} sample {body['seed']}", id=None)
    return "An answer."


def turn_of(body: dict[str, Any]) -> Turn:
    """Returns the turn that a request is for."""
    prompt = next(m["content"] for m in body["messages"] if m["role"] == "user")
    return f"p{prompt.split()[1]}", body["seed"], len(call_ids(body["messages"]))


def whole_lines(path: Path) -> list[dict[str, Any]]:
    """Returns the complete lines; a kill may have truncated the last one."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1] if line]


class KillTracker:
    """Tracks the state on disk after each kill, and violations of the guarantees."""

    def __init__(self, log: Path, output: Path) -> None:
        self.log, self.output = log, output
        self.paid: set[Turn] = set()
        """Turns whose reply is in the journal or in the log."""
        self.consulted: set[str] = set()
        """Situations whose answer is in the journal or in the log."""
        self.logged: dict[tuple[str, int], str] = {}
        """Episode id of each logged sample."""
        self.paid_twice: list[Any] = []

    def note_requests(self, requests: list[dict[str, Any]], situations: list[str]) -> None:
        """Checks the requests of the last process against the replies that were already paid for."""
        self.paid_twice += [t for body in requests if (t := turn_of(body)) in self.paid]
        self.paid_twice += [s for s in situations if s in self.consulted]

    def note_files(self) -> None:
        """Reads the files that the kill left behind."""
        acknowledged = re.findall(r"^(p\d+)#(\d+):? ", self.output.read_text(encoding="utf-8"), re.MULTILINE)
        for line in whole_lines(self.log):
            key = (line["prompt_id"], line["sample_index"])
            assert self.logged.setdefault(key, line["id"]) == line["id"], "a sample was logged twice"
            self.paid |= {(*key, turn["index"]) for turn in line["turns"]}
            self.consulted |= {c["situation"] for c in line["consultations"]}
        for line in whole_lines(Path(f"{self.log}.journal")):
            if turn := line.get("turn"):
                self.paid.add((line["prompt_id"], line["sample_index"], turn["turn"]["index"]))
            if consultation := line.get("consultation"):
                self.consulted.add(consultation["situation"])
        lost = {(id, int(k)) for id, k in acknowledged} - self.logged.keys()
        assert not lost, f"acknowledged and lost: {lost}"


@pytest.mark.parametrize(
    ("kills", "prompts"),
    [(5, 60), pytest.param(100, 1000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])],
)
def test_no_kill_loses_doubles_or_pays_again(kills: int, prompts: int, tmp_path: Path) -> None:
    dice = random.Random(kills)
    prompt_file, log, output = tmp_path / "prompts.jsonl", tmp_path / "log.jsonl", tmp_path / "said.txt"
    output.touch()
    lines = [json.dumps({"id": f"p{n}", "prompt": f"Question {n} ?"}) for n in range(prompts)]
    prompt_file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    tracker, in_the_middle = KillTracker(log, output), 0
    with (
        ScriptedRules() as rules,
        ScriptedEndpoint(otherwise=consult_then_answer, delay=0.02) as endpoint,
        PreloadedAgent() as lives,
    ):
        command = [
            *(
                "run",
                "--prompts",
                str(prompt_file),
                "--log",
                str(log),
                "--samples",
                str(SAMPLES),
                "--seed",
                "0",
            ),
            *("--concurrency", str(CONCURRENCY), "--base-url", endpoint.base_url, "--model", "scripted"),
            *("--rules-url", rules.url, "--trace"),
        ]
        for _ in range(kills):
            requests, consultations = len(endpoint.requests), len(rules.consultations)
            process = lives.start(command, output)
            if dice.random() < 0.2:  # while it starts, reads the log and rewrites the journal
                process.join(dice.uniform(0.0, 0.6))
            else:
                target, deadline = requests + dice.randint(1, 50), time.monotonic() + MAX_SECONDS
                while len(endpoint.requests) < target and process.is_alive():
                    assert time.monotonic() < deadline, output.read_text(encoding="utf-8")[-2000:]
                    time.sleep(dice.uniform(0.0005, 0.004))
            in_the_middle += process.is_alive()
            process.kill()
            process.join(20)
            time.sleep(0.05)  # requests in flight arrive
            new = [c["situation"] for c in rules.consultations[consultations:]]
            tracker.note_requests(endpoint.requests[requests:], new)
            tracker.note_files()
        requests, consultations = len(endpoint.requests), len(rules.consultations)
        process = lives.start(command, output)
        process.join(MAX_SECONDS * 5)
        assert process.exitcode == 0, output.read_text(encoding="utf-8")[-2000:]
        new = [c["situation"] for c in rules.consultations[consultations:]]
        tracker.note_requests(endpoint.requests[requests:], new)
        before = dict(tracker.logged)
        tracker.note_files()

    assert in_the_middle == kills
    assert tracker.paid_twice == []
    episodes = read_log(log).episodes
    keys = Counter((episode.prompt_id, episode.sample_index) for episode in episodes)
    assert keys == {(f"p{n}", k): 1 for n in range(prompts) for k in range(SAMPLES)}
    assert before.items() <= {(e.prompt_id, e.sample_index): e.id for e in episodes}.items()
    # Each kill may leave one truncated line; there may be no other problem.
    _, problems = validate_log(log)
    assert all("is not an episode" in problem.what for problem in problems)
    assert {(episode.stop_reason, episode.mode) for episode in episodes} == {("answer", "consult")}
    # Only requests in flight at a kill are repeated.
    print(f"{kills} kills, {len(episodes)} episodes, {len(endpoint.requests)} requests, 0 paid twice")
    assert len(endpoint.requests) <= 2 * len(episodes) + kills * CONCURRENCY
