"""256 episodes at once on one core, against an endpoint of 200 ms that admits 100 requests a second.

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

PER_SECOND = 100
AT_ONCE = 256


def resident_mib() -> float:
    """Memory that the process holds now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * resource.getpagesize() / 2**20


async def sample(base_url: str, log: Path, episodes: int) -> None:
    """Run them as `ascl-agent run` does."""
    prompts = [Prompt(id=f"p{n}", prompt=f"Question {n}?") for n in range(episodes)]
    async with Endpoint(base_url, "m") as endpoint:
        await run_prompts(Agent(endpoint, None), prompts, log, concurrency=AT_ONCE)


def measure(episodes: int) -> dict[str, Any]:
    """What came of it."""
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[-1]})
    held: list[float] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.5):
            held.append(resident_mib())

    with tempfile.TemporaryDirectory() as folder, slow_endpoint(0.2, PER_SECOND) as base_url:
        log = Path(folder) / "log.jsonl"
        watcher = threading.Thread(target=watch)
        watcher.start()
        began = time.perf_counter()
        try:
            asyncio.run(sample(base_url, log, episodes))
        finally:
            seconds = time.perf_counter() - began
            done.set()
            watcher.join()
        count, problems = validate_log(log)
        answered = sum(episode.stop_reason == "answer" for episode in iter_log(log))
        attempts = sum(turn.attempts for episode in iter_log(log) for turn in episode.turns)
    middle = len(held) // 2
    return {
        "episodes": count,
        "answered": answered,
        "problems": len(problems),
        "seconds": round(seconds, 2),
        "per_second": round(answered / seconds, 1),
        "of_what_is_admitted": round(answered / seconds / PER_SECOND, 3),
        "requests_per_answer": round(attempts / max(answered, 1), 2),
        "mib_first_half": round(max(held[:middle], default=0), 1),
        "mib_second_half": round(max(held[middle:], default=0), 1),
    }


def main() -> None:
    """Measure, print, and exit with 1 when an episode is lost or throughput is under 0.9."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=1000)
    options = parser.parse_args()
    found = measure(options.episodes)
    print(json.dumps(found))
    sys.exit(found["answered"] < options.episodes or found["of_what_is_admitted"] < 0.9)


if __name__ == "__main__":
    main()
