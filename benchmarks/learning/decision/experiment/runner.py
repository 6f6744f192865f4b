"""Runs every method, start and seed of an experiment, each into its own file."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agent.episode import text_digest
from benchmarks.learning.decision.data.hints import Hints
from benchmarks.learning.decision.experiment.outcomes import prompt_chances
from benchmarks.learning.decision.experiment.prompt_sets import PromptSets
from benchmarks.learning.decision.experiment.settings import Experiment, Method
from benchmarks.learning.decision.model.cold_start import cold_start
from benchmarks.learning.decision.model.policy import DecisionPolicy, EncodedPrompts
from benchmarks.learning.decision.model.training import (
    TrainingPrompts,
    ValidationPrompts,
    mean_by_kind,
    train,
)
from evaluation.prompts import Prompt
from trainer.stages import Notify, run_record


@dataclass(frozen=True)
class RunFolders:
    """Folders of the runs."""

    out: Path
    """Results."""
    cache: Path
    """Cold starts, hidden states and hints."""
    base: Path
    """The untrained model."""
    data: Path | None
    """Prompts of other sources; None for the benchmark's own prompts only."""


class ExperimentSetup:
    """A cold start and the prompts, loaded once for all runs of an experiment.

    Args:
        start: name of a cold start, or the folder of a model to start from.
        measure_training: whether to measure the start on the training prompts, which only `kl` needs.
    """

    def __init__(
        self,
        experiment: Experiment,
        start: str | Path,
        folders: RunFolders,
        *,
        measure_training: bool = True,
    ) -> None:
        training = experiment.training
        self.experiment, self.cache = experiment, folders.cache
        self.folder = start if isinstance(start, Path) else cold_start(start, folders.cache, folders.base)
        self.policy = DecisionPolicy(self.folder, training.layers, training.rank, training.bfloat16)
        self.sets = PromptSets.of(experiment, folders.data, self._length)
        self.hints = Hints(folders.cache) if experiment.hint_share else None
        training_set = [prompt for prompts in self.sets.training.values() for prompt in prompts]
        states = self._encode(training_set, share=experiment.hint_share)
        self.training = TrainingPrompts(
            states,
            [prompt.kind for prompt in training_set],
            prompt_chances(training_set, experiment.rewards),
            np.array([experiment.rewards[prompt.kind].gain for prompt in training_set]),
            self.policy.consult_probabilities(states).double().numpy()
            if measure_training
            else np.full(len(training_set), np.nan),
        )
        self.validation = ValidationPrompts(
            self._encode(self.sets.validation), [prompt.kind for prompt in self.sets.validation]
        )
        self.unseen = self.sets.unseen | self.sets.calibration | self.sets.disguised
        flat = [prompt for prompts in self.unseen.values() for prompt in prompts]
        self.unseen_states = self._encode(flat)
        self.unhinted_states = self._encode(flat, share=0.0) if self.hints is not None else None

    def _encode(self, prompts: Sequence[Prompt], share: float = 1.0) -> EncodedPrompts:
        """Encodes prompts with hints for a share of them; without hints if the experiment has none."""
        lines = None
        if self.hints is not None:
            lines = [
                self.hints.of(prompt).text if wants_hint(prompt.id, share) else None for prompt in prompts
            ]
        return self.policy.encode([prompt.prompt for prompt in prompts], self.cache, lines)

    def _length(self, prompt: Prompt) -> int:
        return len(self.policy.tokenizer(prompt.prompt, add_special_tokens=False)["input_ids"])

    def start(self) -> dict[str, Any]:
        """Returns the rates before training, in the format of a run's result."""
        self.policy.reset(0)
        return {"learnt": mean_by_kind(self.training.start, self.training.kinds)} | self.measure()

    def service(self) -> dict[str, Any]:
        """Returns the rates of the service's own decision: to consult exactly when it finds a rule."""
        assert self.hints is not None
        training_set = [prompt for prompts in self.sets.training.values() for prompt in prompts]
        found = [float(self.hints.of(prompt).found) for prompt in training_set]
        chosen = {
            name: [self.hints.of(prompt) for prompt in prompts] for name, prompts in self.unseen.items()
        }
        return {
            "learnt": mean_by_kind(found, self.training.kinds),
            "unseen": {
                name: [float(hint.found) for hint in hints]
                for name, hints in chosen.items()
                if name in self.sets.unseen
            },
            "log_odds": {name: [_log_odds(hint.score) for hint in hints] for name, hints in chosen.items()},
        }

    def run(
        self, method: Method, seed: int, on_update: Callable[[dict[str, Any]], None] | None = None
    ) -> dict[str, Any]:
        """Trains and measures. Returns the result of the run."""
        start, cpu_start = time.perf_counter(), time.process_time()
        updates = train(
            self.policy, self.training, self.validation, self.experiment.training, method, seed, on_update
        )
        training_cpu = time.process_time() - cpu_start
        return {
            "method": method.model_dump(mode="json"),
            "seed": seed,
            "updates": updates,
            **self.measure(),
            "seconds": round(time.perf_counter() - start, 1),
            "cpu_seconds_training": round(training_cpu, 1),
            "cpu_seconds": round(time.process_time() - cpu_start, 1),
        }

    def measure(self) -> dict[str, Any]:
        """Returns the exact probability of consulting on every unseen prompt, by `source/kind`.

        `log_odds` are those of all prompts that are not trained on, and `unhinted` the same without hints.
        """
        odds = self.policy.consult_log_odds(self.unseen_states)
        probabilities = self._by_name(np.round(odds.sigmoid().numpy(), 5).tolist())
        result = {
            "unseen": {name: probabilities[name] for name in self.sets.unseen},
            "log_odds": self._by_name(np.round(odds.numpy(), 3).tolist()),
        }
        if self.unhinted_states is not None:
            odds = self.policy.consult_log_odds(self.unhinted_states)
            result["unhinted"] = self._by_name(np.round(odds.numpy(), 3).tolist())
        return result

    def _by_name(self, remaining: list[float]) -> dict[str, list[float]]:
        values = {}
        for name, prompts in self.unseen.items():
            values[name], remaining = remaining[: len(prompts)], remaining[len(prompts) :]
        return values


def _log_odds(probability: float) -> float:
    inside = min(max(probability, 1e-4), 1 - 1e-4)
    return round(float(np.log(inside / (1 - inside))), 3)


def wants_hint(prompt_id: str, share: float) -> bool:
    """Returns whether a prompt is in the share that gets a hint, by the rule of `ascl-agent run`."""
    return int(text_digest(f"hint {prompt_id}")[:8], 16) < share * 2**32


def run_experiment(
    name: str,
    experiment: Experiment,
    folders: RunFolders,
    notify: Notify,
    *,
    starts: list[str],
    methods: list[str],
    seeds: list[int],
) -> int:
    """Runs all unfinished runs, seed by seed, so that methods can be compared at any time.

    Returns:
        The number of runs.

    Raises:
        ValueError: a finished run has other settings.
    """
    count = 0
    digest = settings_digest(experiment)
    for start in starts:
        folder = folders.out / name / start
        runs = [(seed, method, folder / f"{method}-{seed:02d}.json") for seed in seeds for method in methods]
        start_measured = _is_finished(folder / "start.json", digest, None)
        unfinished = [each for each in runs if not _is_finished(each[2], digest, experiment.methods[each[1]])]
        if start_measured and not unfinished:
            continue
        setup = ExperimentSetup(experiment, start, folders)
        common = {
            "experiment": name,
            "start": start,
            "settings_sha256": digest,
            "versions": run_record.package_versions(),
            "unseen_left_out": setup.sets.left_out,
        }
        if not start_measured:
            _write(folder / "start.json", common | setup.start())
            if setup.hints is not None:
                _write(folder / "service.json", common | {"name": "service"} | setup.service())
        for seed, method, file in unfinished:
            if file.is_file():  # another process has finished it
                continue
            result = setup.run(experiment.methods[method], seed)
            _write(file, common | {"name": method} | result)
            count += 1
            rates = summarize_rates(result["unseen"])
            notify(
                f"{name}, {start}, {method}, seed {seed}: unseen harmful {rates['harmful']:.3f}, harmless "
                f"{rates['harmless']:.3f} ({result['seconds']:.0f} s)"
            )
    return count


def _is_finished(file: Path, digest: str, method: Method | None) -> bool:
    """Returns whether a run is finished. Raises ValueError if its settings differ."""
    if not file.is_file():
        return False
    run = json.loads(file.read_text(encoding="utf-8"))
    if run["settings_sha256"] != digest or _method_of(run) != method:
        raise ValueError(f"{file} was created with different settings: remove it, or pass a different --out")
    return True


def _method_of(run: dict[str, Any]) -> Method | None:
    return Method.model_validate(run["method"]) if "method" in run else None


def settings_digest(experiment: Experiment) -> str:
    """Returns a digest of the rewards and of the training settings that all methods share."""
    shared = experiment.model_dump(mode="json", exclude={"methods", "seeds", "starts"})
    # Keeps the digests of experiments from before these settings existed.
    if not experiment.learnt_sources:
        del shared["learnt_sources"], shared["learnt_per_source"]
    for name in ("unseen_sources", "hint_share", "calibration_per_source", "watched_per_source"):
        if not shared[name]:
            del shared[name]
    return hashlib.sha256(json.dumps(shared, sort_keys=True).encode()).hexdigest()[:16]


def summarize_rates(unseen: dict[str, list[float]]) -> dict[str, float]:
    """Returns consult rates for `harmful`, `harmless` and each kind on other sources, and `own ...` on own
    prompts.

    All sources have equal weight, independent of their number of prompts.
    """
    means = {name: float(np.mean(probabilities)) for name, probabilities in unseen.items()}
    rates: dict[str, float] = {}
    for prefix, own in (("", False), ("own ", True)):
        selected = {name: mean for name, mean in means.items() if name.startswith("own/") == own}
        kinds = sorted({name.rsplit("/", 1)[1] for name in selected})
        for kind in kinds:
            rates[prefix + kind] = float(
                np.mean([m for name, m in selected.items() if name.endswith(f"/{kind}")])
            )
        harmless = [mean for name, mean in selected.items() if not name.endswith("/harmful")]
        if harmless:
            rates[f"{prefix}harmless"] = float(np.mean(harmless))
    return rates


def _write(file: Path, content: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(f".{id(content)}.tmp")
    partial.write_text(json.dumps(content) + "\n", encoding="utf-8")
    partial.replace(file)
