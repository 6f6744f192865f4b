"""Samples prompts and measures their gradients; writes one line and one file of vectors per prompt."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.learning.decision_gradient.designs import DESIGNS, PromptPool, draw_groups
from benchmarks.learning.decision_gradient.gradients import AdapterGradients, Branch
from benchmarks.learning.decision_gradient.rollout.sampling import SampledEpisode, Sampler, strata
from trainer.stages.online.strata.call_opening import CONSULT

Row = dict[str, Any]
CONSULT_EPISODES, DIRECT_EPISODES = 6, 4
"""Episodes of each prompt that are forced into a mode. A group as sampled needs more that consult."""
REST_DESIGNS = ("GRPO", "IFPO", "IFPO, strata 4 + 4")
"""Designs whose gradient of the tokens after the decision is measured, on one group each."""


@dataclass(frozen=True)
class Measurement:
    """Settings of a run."""

    probability: float | None = None
    """Probability of consulting that groups are drawn with; None: the model's own."""
    seed: int = 0
    batch: int = 3
    """Prompts that are sampled together."""
    rest_every: int = 3
    """Interval, in batches, at which the gradient of the tokens after the decision is measured."""
    seconds: float = math.inf
    """No batch starts later than this."""


def measure(
    prompts: Sequence[Row], sampler: Sampler, gradients: AdapterGradients, out: Path, settings: Measurement
) -> int:
    """Measures the prompts that `out` does not contain yet; returns the number that remain.

    Args:
        prompts: rows of `load_prompt_rows`, in the order in which they are measured.
    """
    file = out / f"prompts-{settings.seed}.jsonl"
    done = {row["prompt_id"] for row in read_rows(file)}
    started, cpu = time.monotonic(), time.process_time()
    batches = [prompts[i : i + settings.batch] for i in range(0, len(prompts), settings.batch)]
    for number, batch in enumerate(batches):
        if all(row["prompt_id"] in done for row in batch):
            continue
        if time.monotonic() - started > settings.seconds:
            break
        found = _measure_batch(number, batch, sampler, gradients, settings)
        for row, vectors in found:
            np.savez(out / f"{row['prompt_id']}.npz", **vectors)
        with file.open("a", encoding="utf-8") as stream:
            stream.writelines(json.dumps(row) + "\n" for row, _ in found)
        done |= {row["prompt_id"] for row in batch}
        print(
            f"decision_gradient: {len(done)} of {len(prompts)} prompts, "
            f"{time.process_time() - cpu:.0f} s of CPU, {time.monotonic() - started:.0f} s",
            file=sys.stderr,
            flush=True,
        )
    return len(prompts) - len(done)


def read_rows(file: Path) -> list[Row]:
    """Returns the rows of a file of JSON Lines, without a last line that was cut off; none without a file."""
    if not file.is_file():
        return []
    rows = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def _measure_batch(
    number: int, batch: Sequence[Row], sampler: Sampler, gradients: AdapterGradients, settings: Measurement
) -> list[tuple[Row, dict[str, Any]]]:
    generator = torch.Generator().manual_seed(settings.seed * 100_003 + number)
    ids = [
        sampler.tokenizer.apply_chat_template(
            row["prompt"], tools=[sampler.rule_tool.tool], add_generation_prompt=True, return_dict=False
        )
        for row in batch
    ]
    modes = [strata(CONSULT_EPISODES, DIRECT_EPISODES)] * len(batch)
    episodes, states = sampler.sample(ids, modes, generator)
    rewards = _rewards(batch, episodes, sampler)
    found = []
    for place, row in enumerate(batch):
        own = [(each, reward) for each, reward in zip(episodes, rewards, strict=True) if each.row == place]
        consult = [pair for pair in own if pair[0].forced == CONSULT]
        direct = [pair for pair in own if pair[0].forced != CONSULT]
        record = _record(row, consult, direct)
        pool = PromptPool(
            record["probability"] if settings.probability is None else settings.probability,
            *(np.array([reward for _, reward in part], dtype=float) for part in (consult, direct)),
        )
        vectors = _decision_vectors(states[place], consult, direct, sampler, gradients)
        index = number * settings.batch + place
        if number % settings.rest_every == 1 % settings.rest_every:
            seed = [settings.seed, index]
            vectors |= _rest_vectors(states[place], consult, direct, pool, gradients, sampler, seed)
        found.append((record, vectors))
    return found


Pairs = Sequence[tuple[SampledEpisode, float | None]]


def _record(row: Row, consult: Pairs, direct: Pairs) -> Row:
    """Returns the line of a prompt: probability, rewards, first tokens and lengths."""

    def lengths(pairs: Pairs) -> list[int]:
        return [sum(each.written) for each, _ in pairs]

    opening = consult[0][0].log_opening
    return {
        "prompt_id": row["prompt_id"],
        "kind": row["kind"],
        "probability": round(math.exp(math.fsum(opening)), 6),
        "begin": round(math.exp(opening[0]), 6),
        "consult": [reward for _, reward in consult],
        "direct": [reward for _, reward in direct],
        "first_tokens": [each.ids[0] for each, _ in direct],
        "consult_tokens": lengths(consult),
        "direct_tokens": lengths(direct),
        "consultations": [sum(m.get("role") == "tool" for m in each.messages) for each, _ in consult],
    }


def _rewards(
    batch: Sequence[Row], episodes: Sequence[SampledEpisode], sampler: Sampler
) -> list[float | None]:
    from evaluation.scorers import Weights
    from trainer.stages.online.reward import OnlineReward

    rows = [batch[each.row] for each in episodes]
    return OnlineReward(Weights(), sampler.end_ids)(
        [row["prompt"] for row in rows],
        [each.messages for each in episodes],
        [each.ids for each in episodes],
        kind=[row["kind"] for row in rows],
        prompt_id=[f"{row['prompt_id']}" for row in rows],
        answer=[row["answer"] for row in rows],
    )


def _decision_vectors(
    prompt: Any, consult: Pairs, direct: Pairs, sampler: Sampler, gradients: AdapterGradients
) -> dict[str, Any]:
    """Returns the sketches of the gradient of log-probability of opening a call (first), and of each first
    token of a direct answer, in the order of `tokens`."""
    tokens = sorted({each.ids[0] for each, _ in direct})
    opening = sampler.opening.ids
    count = 1 + len(tokens)
    chains = [opening, *([token] for token in tokens)]
    branches = []
    for number, ids in enumerate(chains):
        hidden = consult[0][0].hidden[: len(ids) - 1]
        wanted = [[float(row == number)] * len(ids) for row in range(count)]
        branches.append(Branch(ids, torch.stack(hidden) if hidden else prompt[:0], wanted))
    return {
        "decision": gradients.sketches(prompt, branches).numpy().astype(np.float32),
        "tokens": np.array(tokens),
    }


def _rest_vectors(
    prompt: Any,
    consult: Pairs,
    direct: Pairs,
    pool: PromptPool,
    gradients: AdapterGradients,
    sampler: Sampler,
    seed: list[int],
) -> dict[str, Any]:
    """Returns the sketches of the gradient of the tokens after the decision, of one group of each design."""
    factors = {True: np.zeros((len(consult), 3)), False: np.zeros((len(direct), 3))}
    for column, name in enumerate(REST_DESIGNS):
        # Groups as sampled share their modes and episodes.
        group = draw_groups(pool, DESIGNS[name], 1, np.random.default_rng(seed))
        for consults, episode, rest in zip(group.consults[0], group.episode[0], group.rest[0], strict=True):
            factors[bool(consults)][episode, column] += rest
    total = torch.zeros(len(REST_DESIGNS), 1)
    for pairs, weights, per_pass in ((consult, factors[True], 4), (direct, factors[False], 8)):
        for start in range(0, len(pairs), per_pass):
            branches = []
            for (each, _), weight in zip(
                pairs[start : start + per_pass], weights[start : start + per_pass], strict=True
            ):
                end = sampler.opening.decision(each.ids).end
                wanted = [
                    [float(w) * (place >= end and own) for place, own in enumerate(each.written)]
                    for w in weight.tolist()
                ]
                hidden = torch.stack(each.hidden[: len(each.ids) - 1]) if each.hidden else prompt[:0]
                branches.append(Branch(each.ids, hidden, wanted))
            total = total + gradients.sketches(prompt, branches)
    return {"rest": total.numpy().astype(np.float32)}


@dataclass(frozen=True)
class Measured:
    """Measurements of one prompt."""

    row: Row
    decision: Any
    """(1 + T, SKETCH): gradients of the log-probabilities of opening a call, and of T first tokens."""
    token_of: Any
    """(D,) index of the first token of each direct episode among the T."""
    rest: Any
    """(3, SKETCH) gradients of `REST_DESIGNS`; None if they were not measured."""


def load_measured(out: Path) -> list[Measured]:
    """Reads what `measure` wrote.

    Raises:
        FileNotFoundError: nothing was measured there.
    """
    rows = [row for file in sorted(out.glob("prompts*.jsonl")) for row in read_rows(file)]
    if not rows:
        raise FileNotFoundError(f"'{out}' holds no measurements: run `main run --out {out}` first")
    found = []
    for row in rows:
        with np.load(out / f"{row['prompt_id']}.npz") as vectors:
            tokens = vectors["tokens"].tolist()
            found.append(
                Measured(
                    row,
                    vectors["decision"].astype(float),
                    np.array([tokens.index(token) for token in row["first_tokens"]]),
                    vectors["rest"].astype(float) if "rest" in vectors else None,
                )
            )
    return found
