"""Memory of `ascl-train logged`: it must not grow with the log."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.episodes.groups import write_groups
from tests.fakes.models.tiny_llama import save_tiny_llama
from tests.fakes.processes import preloaded

PROMPT_TOKENS = REPLY_TOKENS = 1000
VARIANTS = 50
"""Distinct episodes that a log of made-up tokens repeats."""


def made_up_episodes(count: int) -> Iterator[dict[str, Any]]:
    """Yields rows of a groups file: episodes with token ids and log-probabilities, four of each prompt."""
    rng = random.Random(0)
    turns = []
    for _ in range(VARIANTS):
        prompt, reply = ([rng.randrange(3, 260) for _ in range(n)] for n in (PROMPT_TOKENS - 1, REPLY_TOKENS))
        logprobs = [round(rng.uniform(-6, -5), 6) for _ in reply]
        turn = {"finish_reason": "stop", "prompt_token_ids": [5, *prompt], "token_ids": reply}
        turns.append(json.dumps([turn | {"logprobs": logprobs}]))
    text = "x" * (4 * REPLY_TOKENS)
    for number in range(count):
        messages = [{"role": "user", "content": f"question {number // 4}"}]
        yield {
            "episode_id": f"episode-{number:08d}",
            "group_id": f"group-{number // 4:08d}",
            "mode": "direct",
            "reward": float(number % 4 == 0),
            "messages": json.dumps([*messages, {"role": "assistant", "content": text}]),
            "turns": turns[number % VARIANTS],
        }


def peak_mib(model: Path, folder: Path, count: int, *options: str) -> float:
    """Trains three steps on `count` episodes in a process of its own; returns its peak memory in MiB."""
    folder.mkdir()
    groups = write_groups(folder / "groups.parquet", made_up_episodes(count))
    command = ["logged", "--model", str(model), "--groups", str(groups), "--out", str(folder / "out")]
    settings = ["--max_steps", "3", "--max_length", "2000", "--check_logprobs", "2", "--max_drift", "100"]
    started = time.perf_counter()
    with (folder / "output").open("w+") as output:
        process = preloaded.start(
            *("trainer.cli", *command, *settings, "--logprob_tolerance", "9", *options),
            environment=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
            stdout=output,
            stderr=output,
        )
        code = process.wait()
        output.seek(0)
        assert code == 0, output.read()[-3000:]
    record = json.loads((folder / "out" / "run.json").read_text(encoding="utf-8"))
    assert record["data"]["episodes"] == count
    assert len(record["steps"]) == 3
    peak = process.peak_kib / 1024
    print(
        f"{count} episodes of {PROMPT_TOKENS + REPLY_TOKENS} tokens: {peak:.0f} MiB, "
        f"{time.perf_counter() - started:.0f} s"
    )
    return peak


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("tiny"))


@pytest.mark.timeout(1200)
def test_ten_times_the_episodes_need_little_more_memory(model: Path, tmp_path: Path) -> None:
    few, many = (peak_mib(model, tmp_path / str(count), count) for count in (120, 1200))
    assert many - few < 100, (few, many)  # previously 0.3 MiB per episode


@pytest.mark.slow
def test_a_hundred_thousand_episodes_need_at_most_a_third_more_memory_than_ten_thousand(
    model: Path, tmp_path: Path
) -> None:
    few, many = (peak_mib(model, tmp_path / str(count), count) for count in (10_000, 100_000))
    assert many <= 1.3 * few, (few, many)
