"""Measures time and memory of `ascl-train prepare` and `stats`, compared with plain JSON parsing.

    python -m benchmarks.trainer.group_preparation --episodes 100000 --episodes 1000000

Generates logs with rows of about 1 kB, eight episodes per prompt, and their rewards. Every command runs in a
separate process, whose processor time, wall-clock time and peak resident memory are measured.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

KINDS = ("harmful", "benign_sensitive", "benign_plain", "math")
GROUP_SIZE = 8
BARE_PARSING = """
import json, sys
for path in sys.argv[1:]:
    with open(path, "rb") as file:
        for line in file:
            json.loads(line)
"""
WORDS = [
    "rule",
    "answer",
    "request",
    "situation",
    "reason",
    "person",
    "question",
    "step",
    "careful",
    "detail",
    "plain",
    "help",
]


@dataclass(frozen=True)
class ProcessCost:
    """Resources that a process used: seconds and bytes."""

    wall: float
    cpu: float
    memory: int


def write_log(folder: Path, episodes: int) -> tuple[Path, Path]:
    """Writes a log and its rewards. Returns both paths."""
    rng = random.Random(0)
    log, rewards = folder / "log.jsonl", folder / "rewards.jsonl"
    with log.open("w", encoding="utf-8") as out, rewards.open("w", encoding="utf-8") as rewards_out:
        for episode, reward in generate_rows(rng, episodes):
            out.write(json.dumps(episode) + "\n")
            rewards_out.write(json.dumps(reward) + "\n")
    return log, rewards


def generate_rows(rng: random.Random, episodes: int) -> Iterator[tuple[dict[str, object], dict[str, object]]]:
    for number in range(episodes):
        prompt, sample = divmod(number, GROUP_SIZE)
        kind = KINDS[prompt % 4]
        consult = rng.random() < (0.9 if kind == "harmful" else 0.5)
        answer = " ".join(rng.choices(WORDS, k=24))
        turn = {"index": 0, "request_digest": "0" * 16, "started_at": "2026-01-01T00:00:00Z", "seconds": 1.0}
        call = {"name": "consult_safety_rules", "arguments": '{"situation": "the request"}'}
        consultation = [
            {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": call}]},
            {"role": "tool", "tool_call_id": "c", "content": "[a.b] A rule"},
        ]
        id = f"{number:012x}"
        episode = {
            "schema_version": 1,
            "id": id,
            "group_id": f"group-{prompt}",
            "prompt_id": f"prompt-{prompt}",
            "kind": kind,
            "prompt": f"Question {prompt}",
            "sample_index": sample,
            "model_requested": "model",
            "endpoint": "http://127.0.0.1:8000/v1",
            "policy_version": "start",
            "sampling_sent": {"temperature": 1.0, "max_tokens": 512},
            "rulebook_digest": "ab" * 16,
            "prompt_digest": "cd" * 16,
            "messages": [
                {"role": "user", "content": f"Question {prompt}"},
                *(consultation if consult else []),
                {"role": "assistant", "content": answer},
            ],
            "turns": [{**turn, "finish_reason": "stop"}] * (1 + consult),
            "mode": "consult" if consult else "direct",
            "stop_reason": "answer",
            "started_at": "2026-01-01T00:00:00Z",
            "seconds": 2.0,
        }
        good = rng.random() < (0.9 if consult == (kind == "harmful") else 0.6)
        reward = {
            "schema_version": 1,
            "episode_id": id,
            "kind": kind,
            "mode": episode["mode"],
            "label": "compliance",
            "scores": {"outcome": float(good), "format": 0.0},
            "total": float(good),
            "scorers": {"refusal": "1", "answers": "1", "rewards": "1"},
        }
        yield episode, reward


def run_process(*arguments: object) -> ProcessCost:
    """Runs a Python process and waits until it ends.

    Raises:
        RuntimeError: the process failed.
    """
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *map(str, arguments)], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{arguments[:4]} ended with code {process.returncode}")
    return ProcessCost(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def measure(episodes: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log, rewards = write_log(folder, episodes)
        groups = folder / "groups.parquet"
        cli = ("-m", "trainer.cli")
        bare, prepare, stats = [], [], []
        for _ in range(rounds):
            bare.append(run_process("-c", BARE_PARSING, log, rewards))
            prepare.append(run_process(*cli, "prepare", log, rewards, "--out", groups))
            stats.append(run_process(*cli, "stats", groups))
        size = log.stat().st_size
        print(
            f"\n{episodes} episodes, {size / episodes:.0f} bytes each, {rounds} rounds, medians; groups "
            f"{groups.stat().st_size / size:.0%} of the log\n"
        )
        print(
            "| command | wall s | processor s | wall / bare parsing | MiB |\n| --- | --- | --- | --- | --- |"
        )
        for title, costs in (("bare json.loads of both files", bare), ("prepare", prepare), ("stats", stats)):
            wall, cpu = (statistics.median(getattr(one, kind) for one in costs) for kind in ("wall", "cpu"))
            ratio = statistics.median(one.wall / base.wall for one, base in zip(costs, bare, strict=True))
            memory = max(one.memory for one in costs) / 2**20
            print(f"| {title} | {wall:.2f} | {cpu:.2f} | {ratio:.2f} | {memory:.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--episodes", type=int, action="append", help="size of the log; repeat for several sizes"
    )
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    for episodes in options.episodes or [100_000]:
        measure(episodes, options.rounds)


if __name__ == "__main__":
    main()
