"""Runs 256 concurrent episodes on one core against a 200 ms endpoint that admits 100 requests per second.

python -m benchmarks.agent.concurrency --episodes 1000
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from agent.endpoint import Endpoint
from agent.episode import iter_log, validate_log
from agent.rollout import Agent, Prompt, run_prompts
from benchmarks.agent.slow_endpoint import slow_endpoint

ADMITTED_PER_SECOND = 100
CONCURRENCY = 256


def resident_mib() -> float:
    """Returns the resident memory of this process, MiB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * resource.getpagesize() / 2**20


async def sample(base_url: str, log: Path, episodes: int) -> None:
    """Runs the episodes as `ascl-agent run` does."""
    prompts = [Prompt(id=f"p{n}", prompt=f"Question {n}?") for n in range(episodes)]
    async with Endpoint(base_url, "m") as endpoint:
        await run_prompts(Agent(endpoint, None), prompts, log, concurrency=CONCURRENCY)


def measure(episodes: int) -> dict[str, Any]:
    """Runs the benchmark on the last core. Returns throughput, lost episodes and memory."""
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[-1]})
    memory: list[float] = []
    stop = threading.Event()

    def record_memory() -> None:
        while not stop.wait(0.5):
            memory.append(resident_mib())

    with tempfile.TemporaryDirectory() as folder, slow_endpoint(0.2, ADMITTED_PER_SECOND) as base_url:
        log = Path(folder) / "log.jsonl"
        recorder = threading.Thread(target=record_memory)
        recorder.start()
        start = time.perf_counter()
        try:
            asyncio.run(sample(base_url, log, episodes))
        finally:
            seconds = time.perf_counter() - start
            stop.set()
            recorder.join()
        count, problems = validate_log(log)
        answered = sum(episode.stop_reason == "answer" for episode in iter_log(log))
        attempts = sum(turn.attempts for episode in iter_log(log) for turn in episode.turns)
    middle = len(memory) // 2
    return {
        "episodes": count,
        "answered": answered,
        "problems": len(problems),
        "seconds": round(seconds, 2),
        "per_second": round(answered / seconds, 1),
        "of_what_is_admitted": round(answered / seconds / ADMITTED_PER_SECOND, 3),
        "requests_per_answer": round(attempts / max(answered, 1), 2),
        "mib_first_half": round(max(memory[:middle], default=0), 1),
        "mib_second_half": round(max(memory[middle:], default=0), 1),
    }


def main() -> None:
    """Prints the result. Exits with 1 if an episode is lost or throughput is below 0.9 of the admitted
    rate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=1000)
    options = parser.parse_args()
    result = measure(options.episodes)
    print(json.dumps(result))
    sys.exit(result["answered"] < options.episodes or result["of_what_is_admitted"] < 0.9)


if __name__ == "__main__":
    main()
