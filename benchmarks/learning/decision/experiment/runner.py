"""Run every method, start and seed of an experiment; each lands in a file of its own, a kill loses one."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.learning.decision.data.prompts import (
    held_out_prompts,
    source_prompts,
    training_prompts,
    validation_prompts,
)
from benchmarks.learning.decision.experiment.outcomes import prompt_chances
from benchmarks.learning.decision.experiment.settings import Experiment, Method
from benchmarks.learning.decision.model.cold_start import cold_start
from benchmarks.learning.decision.model.policy import DecisionPolicy
from benchmarks.learning.decision.model.training import (
    TrainingPrompts,
    ValidationPrompts,
    mean_by_kind,
    train,
)
from evaluation.prompts import Prompt
from trainer.stages import run_record as record

Notify = Callable[[str], None]


@dataclass(frozen=True)
class RunFolders:
    """Folders of a run: results, cold starts and hidden states, the untrained model, and unseen prompts."""

    out: Path
    cache: Path
    base: Path
    data: Path


class ExperimentSetup:
    """One cold start, loaded once for all of an experiment's runs."""

    def __init__(self, experiment: Experiment, start: str, place: RunFolders) -> None:
        training = experiment.training
        self.experiment = experiment
        self.folder = cold_start(start, place.cache, place.base)
        self.policy = DecisionPolicy(self.folder, training.layers, training.rank, training.bfloat16)
        learnt = [prompt for prompt in training_prompts() if prompt.kind in training.prompts]
        if experiment.learnt_sources:
            more = source_prompts(place.data, experiment.learnt_per_source, only=experiment.learnt_sources)
            learnt += [
                prompt
                for prompts in more.values()
                for prompt in prompts
                if self._length(prompt) <= experiment.unseen_tokens
            ]
        watched = validation_prompts()
        unseen = (
            source_prompts(place.data, experiment.unseen_per_source, without=experiment.learnt_sources)
            | held_out_prompts()
        )
        self.unseen = {
            name: kept
            for name, prompts in unseen.items()
            if (kept := [prompt for prompt in prompts if self._length(prompt) <= experiment.unseen_tokens])
        }
        self.left_out = sum(map(len, unseen.values())) - sum(map(len, self.unseen.values()))
        states = self.policy.encode([prompt.prompt for prompt in learnt], place.cache)
        self.learnt = TrainingPrompts(
            states,
            [prompt.kind for prompt in learnt],
            prompt_chances(learnt, experiment.rewards),
            np.array([experiment.rewards[prompt.kind].gain for prompt in learnt]),
            self.policy.consult_probabilities(states).double().numpy(),
        )
        self.watched = ValidationPrompts(
            self.policy.encode([prompt.prompt for prompt in watched], place.cache),
            [prompt.kind for prompt in watched],
        )
        flat = [prompt for prompts in self.unseen.values() for prompt in prompts]
        self.unseen_states = self.policy.encode([prompt.prompt for prompt in flat], place.cache)

    def _length(self, prompt: Prompt) -> int:
        return len(self.policy.tokenizer(prompt.prompt, add_special_tokens=False)["input_ids"])

    def start(self) -> dict[str, Any]:
        """The rates before training, in the form of a run's result."""
        self.policy.reset(0)
        return {"learnt": mean_by_kind(self.learnt.start, self.learnt.kinds), "unseen": self._measure()}

    def run(self, method: Method, seed: int) -> dict[str, Any]:
        """Train and measure."""
        began, cpu = time.perf_counter(), time.process_time()
        updates = train(self.policy, self.learnt, self.watched, self.experiment.training, method, seed)
        trained = time.process_time() - cpu
        return {
            "method": method.model_dump(mode="json"),
            "seed": seed,
            "updates": updates,
            "unseen": self._measure(),
            "seconds": round(time.perf_counter() - began, 1),
            "cpu_seconds_training": round(trained, 1),
            "cpu_seconds": round(time.process_time() - cpu, 1),
        }

    def _measure(self) -> dict[str, list[float]]:
        """The exact probability of consulting on every unseen prompt, by `source/kind`."""
        chances = np.round(self.policy.consult_probabilities(self.unseen_states).double().numpy(), 5).tolist()
        measured = {}
        for name, prompts in self.unseen.items():
            measured[name], chances = chances[: len(prompts)], chances[len(prompts) :]
        return measured


def run_experiment(
    name: str,
    experiment: Experiment,
    place: RunFolders,
    tell: Notify,
    *,
    starts: list[str],
    methods: list[str],
    seeds: list[int],
) -> int:
    """Run what is not there yet, seed by seed so that all methods stand on equal footing at any moment.

    Returns:
        How many runs were done.

    Raises:
        ValueError: a run that is there was made with other settings.
    """
    done = 0
    digest = settings_digest(experiment)
    for start in starts:
        folder = place.out / name / start
        wanted = [
            (seed, method, folder / f"{method}-{seed:02d}.json") for seed in seeds for method in methods
        ]
        started = _is_finished(folder / "start.json", digest, None)
        left = [each for each in wanted if not _is_finished(each[2], digest, experiment.methods[each[1]])]
        if started and not left:
            continue
        bench = ExperimentSetup(experiment, start, place)
        common = {
            "experiment": name,
            "start": start,
            "settings_sha256": digest,
            "versions": record.package_versions(),
            "unseen_left_out": bench.left_out,
        }
        if not started:
            _write(folder / "start.json", common | bench.start())
        for seed, method, file in left:
            if file.is_file():  # another process made it meanwhile
                continue
            result = bench.run(experiment.methods[method], seed)
            _write(file, common | {"name": method} | result)
            done += 1
            rates = summarize_rates(result["unseen"])
            tell(
                f"{name}, {start}, {method}, seed {seed}: unseen harmful {rates['harmful']:.3f}, harmless "
                f"{rates['harmless']:.3f} ({result['seconds']:.0f} s)"
            )
    return done


def _is_finished(file: Path, digest: str, method: Method | None) -> bool:
    """Whether a run was done, and with these settings: figures of different ones are never mixed."""
    if not file.is_file():
        return False
    run = json.loads(file.read_text(encoding="utf-8"))
    if run["settings_sha256"] != digest or run.get("method") != (method and method.model_dump(mode="json")):
        raise ValueError(
            f"{file} was made with other settings than those of today: remove it, or name another --out"
        )
    return True


def settings_digest(experiment: Experiment) -> str:
    """Of the rewards and the training that all methods share."""
    shared = experiment.model_dump(mode="json", exclude={"methods", "seeds", "starts"})
    if not experiment.learnt_sources:  # as the digest of an experiment was before there were such sources
        del shared["learnt_sources"], shared["learnt_per_source"]
    return hashlib.sha256(json.dumps(shared, sort_keys=True).encode()).hexdigest()[:16]


def summarize_rates(unseen: dict[str, list[float]]) -> dict[str, float]:
    """Consult rates: `harmful`, `harmless` and each kind on other sources, `own ...` on our held-out ones.

    Each source counts alike, however many prompts it has.
    """
    means = {name: float(np.mean(chances)) for name, chances in unseen.items()}
    rates: dict[str, float] = {}
    for prefix, own in (("", False), ("own ", True)):
        chosen = {name: mean for name, mean in means.items() if name.startswith("own/") == own}
        kinds = sorted({name.rsplit("/", 1)[1] for name in chosen})
        for kind in kinds:
            rates[prefix + kind] = float(
                np.mean([m for name, m in chosen.items() if name.endswith(f"/{kind}")])
            )
        harmless = [mean for name, mean in chosen.items() if not name.endswith("/harmful")]
        if harmless:
            rates[f"{prefix}harmless"] = float(np.mean(harmless))
    return rates


def _write(file: Path, content: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(f".{id(content)}.tmp")
    partial.write_text(json.dumps(content) + "\n", encoding="utf-8")
    partial.replace(file)
