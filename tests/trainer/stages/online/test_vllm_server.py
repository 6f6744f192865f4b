"""Modes that are forced through a vLLM server: a scripted one over HTTP, and the client of this TRL."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from tests.fakes.endpoints.serve_vllm import Policy, app, install
from tests.fakes.models.few_tokens import (
    ANSWER,
    CALL,
    END,
    NAME,
    OTHER,
    PROMPT,
    save_few_tokens,
    set_probabilities,
)
from tests.fakes.processes.live_server import LiveServer
from trainer.stages.online.strata.call_opening import CONSULT, DIRECT, CallOpening
from trainer.stages.online.strata.vllm_server import Reply, correct_logprobs, sample_forced

ROOT = Path(__file__).resolve().parents[4]
LENGTH, BATCHES = 8, 12
SETTINGS = {
    "num_generations": 8, "max_completion_length": LENGTH, "forced_consult": 2, "forced_direct": 2,
    "scale_rewards": "none", "loss_type": "dr_grpo",
}  # fmt: skip
AT_ONCE = {
    PROMPT: {CALL: 0.9, ANSWER: 0.06, OTHER: 0.04},
    CALL: {NAME: 0.8, OTHER: 0.2},
    NAME: {END: 1.0},
    ANSWER: {ANSWER: 0.3, END: 0.7},
    OTHER: {END: 1.0},
}
AFTER_THOUGHTS = {  # OTHER is a thought, ANSWER ends the thoughts, NAME is a line break
    PROMPT: {OTHER: 1.0},
    OTHER: {OTHER: 0.6, ANSWER: 0.4},
    ANSWER: {NAME: 0.9, END: 0.1},
    NAME: {CALL: 0.8, END: 0.2},
    CALL: {END: 1.0},
}


def save_policy(folder: Path, table: dict[int, dict[int, float]]) -> dict[str, dict[str, float]]:
    """Writes a model with these probabilities of the next token, and returns them for the server."""
    save_few_tokens(folder)
    network = AutoModelForCausalLM.from_pretrained(folder)
    for token, probabilities in table.items():
        set_probabilities(network, token, probabilities)
    network.save_pretrained(folder)
    return {str(token): {str(next_): p for next_, p in row.items()} for token, row in table.items()}


@contextmanager
def serving(folder: Path, table: dict[int, dict[int, float]], **opening: Any) -> Iterator[Path]:
    """Serves a policy that the model in the folder equals, and writes the settings of a run with it."""
    following = save_policy(folder / "model", table)
    requests = folder / "requests.jsonl"
    install(folder, ROOT)
    with LiveServer(app("few", Policy(following=following, ends=[END], requests=str(requests)))) as server:
        vllm = {"use_vllm": True, "vllm_mode": "server", "vllm_server_base_url": server.origin}
        run = {"settings": {**SETTINGS, **vllm, "bf16": False}, "opening": opening, "batches": BATCHES}
        (folder / "run.json").write_text(json.dumps(run), encoding="utf-8")
        yield requests


def launch(verb: str, folder: Path, processes: int = 1) -> list[dict[str, Any]]:
    """Runs the trainer, and returns what each process wrote."""
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    run["settings"]["per_device_train_batch_size"] = 8 // processes
    (folder / "run.json").write_text(json.dumps(run), encoding="utf-8")
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    module = ["-m", "tests.fakes.processes.strata_run", verb, str(folder)]
    process = subprocess.run(
        [sys.executable, *(launcher if processes > 1 else []), *module],
        cwd=ROOT,
        env=os.environ
        | {"PYTHONPATH": f"{folder / 'packages'}:{ROOT}", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        | {"ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    files = [folder / f"{rank}.json" for rank in range(processes)]
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def written(row: dict[str, Any]) -> list[int]:
    mask = row["completion_mask"]
    return [id for id, is_written in zip(row["completion_ids"], mask, strict=True) if is_written]


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_replies_of_a_server_obey_their_modes_and_keep_the_log_probabilities_of_the_policy(
    processes: int, tmp_path: Path
) -> None:
    opening = CallOpening([CALL, NAME])
    with serving(tmp_path, AT_ONCE, ids=opening.ids) as requests:
        results = launch("sample", tmp_path, processes)
        bodies = [json.loads(line) for line in requests.read_text(encoding="utf-8").splitlines()]
    rows = [row for result in results for row in result["rows"]]
    strata = {mode: Counter[int]() for mode in (CONSULT, DIRECT, None)}
    for row in rows:
        strata[row["forced"]][opening.decision(written(row)).stratum] += 1
        # The server and the trainer have the same policy, so nothing is to be corrected, forced or not.
        assert row["importance_sampling_ratio"] == pytest.approx([1.0], abs=1e-4)
    assert strata[CONSULT] == {CONSULT: 2 * BATCHES}
    assert strata[DIRECT] == {DIRECT: 2 * BATCHES}
    assert strata[None][CONSULT] / (4 * BATCHES) == pytest.approx(0.72, abs=0.2)
    assert strata[None][DIRECT] > 0
    metrics = results[0]["metrics"]
    assert metrics["ifpo/opening_probability"] == [pytest.approx(0.72, rel=1e-4)] * BATCHES
    assert metrics["sampling/importance_sampling_ratio/max"] == [pytest.approx(1, abs=1e-4)] * BATCHES
    biased = [body for body in bodies if "logit_bias" in body]
    assert len(biased) == BATCHES  # one process samples the forced direct replies of a group of eight
    for body in biased:
        assert (body["max_tokens"], body["logit_bias"]) == (1, {str(CALL): -100.0})
    for body in bodies:
        assert set(body) - set(biased[0]) == set()  # no other field is ever sent


def test_a_server_is_asked_for_thoughts_a_line_break_and_a_decision_in_turn(tmp_path: Path) -> None:
    opening = CallOpening([NAME, CALL], lead=1, thoughts_end=ANSWER)
    with serving(tmp_path, AFTER_THOUGHTS, ids=opening.ids, lead=1, thoughts_end=ANSWER) as requests:
        (result,) = launch("sample", tmp_path)
        bodies = [json.loads(line) for line in requests.read_text(encoding="utf-8").splitlines()]
    replies = [written(row) for row in result["rows"]]
    for row, reply in zip(result["rows"], replies, strict=True):
        assert row["importance_sampling_ratio"] == pytest.approx([1.0], abs=1e-4)
        if row["forced"] == DIRECT:
            assert CALL not in reply
        elif row["forced"] == CONSULT and ANSWER in reply[:-1]:
            assert (
                reply[reply.index(ANSWER) + 1 :][:2] == [NAME, CALL][: len(reply) - reply.index(ANSWER) - 1]
            )
    assert len({len(reply) for reply in replies}) > 3  # thoughts differ
    thinking = [body for body in bodies if ANSWER in (body.get("stop_token_ids") or [])]
    assert len(thinking) == BATCHES
    assert {len(body["prompt"]) for body in thinking} == {4}  # of the forced replies only


def test_two_processes_learn_the_same_from_stratified_groups_as_one(tmp_path: Path) -> None:
    """A group of eight lies on both processes, and only the first one has forced replies."""
    found = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        folder.mkdir()
        save_policy(folder / "model", AT_ONCE)
        settings = {**SETTINGS, "bf16": False, "max_steps": 6, "optim": "sgd", "learning_rate": 20.0}
        run = {"settings": settings, "opening": {"ids": [CALL, NAME]}}
        (folder / "run.json").write_text(json.dumps(run), encoding="utf-8")
        found.append(launch("train", folder, processes)[0])
    one, two = found
    start = AutoModelForCausalLM.from_pretrained(tmp_path / "1" / "model").lm_head.weight[:, PROMPT].tolist()
    trained = [row[PROMPT] for row in one["head"]]
    assert abs(trained[CALL] - start[CALL]) > 1e-3  # it learned
    for mine, theirs in zip(one["head"], two["head"], strict=True):
        assert theirs == pytest.approx(mine, abs=1e-5)
    for mine, theirs in zip(one["metrics"][:6], two["metrics"][:6], strict=True):
        for name in ("reward", "ifpo/largest_ratio", "ifpo/opening_probability", "ifpo/consult_rate"):
            assert theirs[name] == pytest.approx(mine[name], abs=1e-5), name


@pytest.mark.slow
def test_two_processes_draw_prompts_until_the_groups_of_both_hold_both_modes(tmp_path: Path) -> None:
    with serving(tmp_path, AT_ONCE, ids=[CALL, NAME]):
        run = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
        run["settings"] |= {"forced_consult": 0, "forced_direct": 0, "num_generations": 2, "max_draws": 30}
        (tmp_path / "run.json").write_text(json.dumps(run), encoding="utf-8")
        results = launch("sample", tmp_path, 2)
    assert results[0]["metrics"]["ifpo/draws"] == results[1]["metrics"]["ifpo/draws"]
    assert max(results[0]["metrics"]["ifpo/draws"]) > 1
    for result in results:
        assert result["metrics"]["ifpo/comparing_groups"] == [1.0] * BATCHES
        replies = [written(row) for row in result["rows"]]
        assert len(replies) == 4 * BATCHES  # two groups of two
        for first, second in zip(replies[::2], replies[1::2], strict=True):
            assert (first[:2] == [CALL, NAME]) != (second[:2] == [CALL, NAME])


def test_a_reply_that_ends_before_it_decides_is_left_alone() -> None:
    opening = CallOpening([NAME, CALL], lead=1, thoughts_end=ANSWER)
    asked = []

    def ask(prompts: list[list[int]], length: int, **fields: Any) -> list[Reply]:
        asked.append((prompts, length, fields))
        reply: Reply = ([OTHER, END], [-1.0, 0.0])  # the thoughts are never closed
        return [reply for _ in prompts]

    replies = sample_forced(ask, [[PROMPT]] * 3, 8, opening, [CONSULT, DIRECT, None], [END])
    assert [ids for ids, _ in replies] == [[OTHER, END]] * 3
    assert asked == [
        ([[PROMPT], [PROMPT]], 8, {"stop_token_ids": [END, ANSWER]}),
        ([[PROMPT]], 8, {}),
    ]


def test_an_opening_longer_than_the_limit_is_cut_off() -> None:
    replies = sample_forced(lambda *_, **__: [], [[PROMPT]], 1, CallOpening([CALL, NAME]), [CONSULT], [END])
    assert replies == [([CALL], [0.0])]


def test_a_certain_call_leaves_a_finite_log_probability_to_a_forced_answer() -> None:
    opening = CallOpening([CALL, NAME])
    reply = [ANSWER, END]
    (first, second) = correct_logprobs(
        [-0.1, -0.2], DIRECT, opening, opening.decision(reply), reply, [0.0, 0.0]
    )
    assert first == pytest.approx(-0.1 + math.log(1e-7))
    assert second == -0.2
