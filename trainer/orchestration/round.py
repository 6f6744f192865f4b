"""One round of a loop: which command makes which file, and that each is run once."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from evaluation.prompts import prompt_file
from evaluation.runtime import DIE_WITH_PARENT
from trainer.errors import LoopError
from trainer.orchestration.floor import below_floor, measure
from trainer.orchestration.model_server import STARTED_BY, serve_model
from trainer.orchestration.settings import LoopSettings
from trainer.stages import mask_secrets_in_text

Tell = Callable[[str], None]


class Round:
    """One round: a model is served, episodes are sampled from it, and another model comes of them."""

    def __init__(
        self, settings: LoopSettings, folder: Path, number: int, model: str, rules: str, tell: Tell
    ) -> None:
        self.settings, self.folder, self.number = settings, folder, number
        self.model, self.rules, self.tell = model, rules, tell
        self.name = f"round-{number:03d}"
        self.merged = folder / "trained" / "merged"

    def play(self) -> dict[str, Any]:
        """All steps that are not done; those after a fall below the floor are left."""
        told = self._sample_and_measure(sample=True)
        if not told["below_floor"]:
            self._step("rewards.jsonl", self._score("episodes", "rewards.jsonl"))
            self._step("statistics.json", self._prepare())
            self._step("trained/run.json", self._train())
            told["groups"] = json.loads((self.folder / "statistics.json").read_text(encoding="utf-8"))
        return told

    def measure_only(self) -> dict[str, Any]:
        """The last model, measured and not trained further."""
        return self._sample_and_measure(sample=False)

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def _sample_and_measure(self, sample: bool) -> dict[str, Any]:
        floor = self.settings.floor
        with ExitStack() as stack:
            served: list[str] = []

            def url() -> str:  # the server is started by the first step that needs it
                if not served:
                    self._check_model()
                    self.tell(f"{self.name}: serving {self.model}")
                    log = self.folder / "server.log"
                    served.append(
                        stack.enter_context(serve_model(self.settings.serve, _absolute(self.model), log))
                    )
                return served[0]

            told: dict[str, Any] = {"round": self.number, "model": self.model, "below_floor": None}
            if floor is not None:
                self._sampled("measured", lambda: self._run("measured", url(), floor.prompts, floor.samples))
                self._step(
                    "measured-rewards.jsonl", self._score("measured", "measured-rewards.jsonl", floor.prompts)
                )
                told["measured"] = measure(
                    self.folder / "measured.jsonl", self.folder / "measured-rewards.jsonl"
                )
                told["below_floor"] = below_floor(told["measured"], floor)
            if sample and not told["below_floor"]:
                how = self.settings.sampling
                self._sampled("episodes", lambda: self._run("episodes", url(), how.prompts, how.samples))
        return told

    def _run(self, name: str, url: str, prompts: str, samples: int) -> list[str]:
        how = self.settings.sampling
        command = [
            *("agent.cli", "run", "--prompts", str(prompt_file(prompts)), "--samples", str(samples)),
            *("--log", self.path(f"{name}.jsonl"), "--policy-version", self.name),
            *("--base-url", url, "--model", _absolute(self.model), "--rules", self.rules),
            *("--temperature", str(how.temperature), "--max-tokens", str(how.max_tokens)),
            *("--max-turns", str(how.max_turns), "--concurrency", str(how.concurrency)),
            *("--provider", how.provider),
        ]
        if how.seed is not None:
            command += ["--seed", str(how.seed + 100_000 * self.number)]
        if name == "episodes":
            for mode, share in how.mode_share.items():
                command += ["--mode-share", f"{mode}={share}"]
            if how.direct_draws is not None:
                command += ["--direct-draws", str(how.direct_draws)]
        return command

    def _score(self, log: str, out: str, prompts: str | None = None) -> list[str]:
        scoring = self.settings.scoring
        command = [
            *("evaluation.cli", "score", self.path(f"{log}.jsonl"), "--out", self.path(out)),
            *("--prompts", str(prompt_file(prompts or self.settings.sampling.prompts))),
            *("--format-penalty", str(scoring.format_penalty)),
        ]
        if scoring.judge:
            judged = f"{log}-judgements.jsonl"
            options = [part for name, value in scoring.judge.items() for part in (f"--{name}", str(value))]
            self._step(
                judged,
                [
                    *("evaluation.cli", "judge", "run", self.path(f"{log}.jsonl")),
                    *("--out", self.path(judged), *options),
                ],
            )
            command += ["--judgements", self.path(judged)]
        return command

    def _prepare(self) -> list[str]:
        how = self.settings.advantages
        return [
            *("trainer.cli", "prepare", self.path("episodes.jsonl"), self.path("rewards.jsonl")),
            *(
                "--json",
                "--out",
                self.path("groups.parquet"),
                "--alpha",
                str(how.alpha),
                "--w-max",
                str(how.w_max),
            ),
            *("--baseline", how.baseline, "--scale-rewards", how.scale_rewards),
            *(["--keep-forced"] if self.settings.sampling.mode_share else []),
        ]

    def _train(self) -> list[str]:
        import yaml

        config = self.folder / "train.yaml"
        write_atomic_text(config, yaml.safe_dump(self.settings.train, sort_keys=False))
        return [
            *("trainer.cli", "logged", "--resume", "--config", str(config), "--model", self.model),
            *("--groups", self.path("groups.parquet"), "--out", self.path("trained")),
        ]

    def _sampled(self, name: str, command: Callable[[], list[str]]) -> None:
        """A log grows, so that it is whole is marked apart."""
        done = self.folder / f"{name}.done"
        if not done.exists():
            self._execute(command())
            write_atomic_text(done, "")

    def _step(self, result: str, command: list[str]) -> None:
        """Run a command unless its result is there; the result appears whole or not at all."""
        if (self.folder / result).exists():
            return
        printed = self._execute(command)
        if result == "statistics.json":
            write_atomic_text(self.folder / result, printed)

    def _execute(self, command: list[str]) -> str:
        module, verb = command[0], command[1]
        name = f"ascl-{ {'agent': 'agent', 'evaluation': 'eval', 'trainer': 'train'}[module.split('.')[0]] }"
        if verb == "logged":
            self._check_model()
        self.tell(f"{self.name}: $ {mask_secrets_in_text(shlex.join([name, *command[1:]]))}")
        launcher = self.settings.launcher if verb == "logged" else None
        start = shlex.split(launcher) if launcher else [sys.executable, "-m"]
        # A step that outlived a killed loop would write beside the one that the next loop starts.
        done = subprocess.run(
            [*start, *command],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
            env={**os.environ, STARTED_BY: str(os.getpid())},
            preexec_fn=DIE_WITH_PARENT,
        )
        if done.returncode != 0:
            raise LoopError(
                f"{self.name}: `{name} {verb}` ended with code {done.returncode}; what it said stands above. "
                "What is done is kept: the same command goes on from here."
            )
        if done.stdout and verb != "prepare":
            self.tell(done.stdout.rstrip())
        return done.stdout

    def _check_model(self) -> None:
        """A model that the loop made and that is gone would be taken for a name of the hub."""
        if self.number > 1 and not Path(self.model).is_dir():
            raise LoopError(
                f"{self.name}: the model {self.model}, which this round starts from, is gone: put it back, "
                "or begin another loop with another --out"
            )


def _absolute(model: str) -> str:
    return str(Path(model).resolve()) if Path(model).is_dir() else model


def write_atomic_text(path: Path, text: str) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.tmp")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
