"""One round of a loop: the commands that produce its files. Each command runs once."""

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
from evaluation.runtime import DIE_WITH_PARENT, write_atomic
from trainer.errors import LoopError
from trainer.orchestration.floor import below_floor, measure
from trainer.orchestration.model_server import STARTED_BY_VARIABLE, serve_model
from trainer.orchestration.settings import LoopSettings
from trainer.stages import Notify, mask_secrets_in_text

PROGRAMS = {"agent.cli": "ascl-agent", "evaluation.cli": "ascl-eval", "trainer.cli": "ascl-train"}


class Round:
    """One round: serves a model, samples episodes from it, and trains the next model on them."""

    def __init__(
        self, settings: LoopSettings, folder: Path, number: int, model: str, rules: str, notify: Notify
    ) -> None:
        self.settings, self.folder, self.number = settings, folder, number
        self.model, self.rules, self.notify = model, rules, notify
        self.name = f"round-{number:03d}"
        self.merged = folder / "trained" / "merged"
        """Folder of the model that this round trains."""

    def run(self) -> dict[str, Any]:
        """Runs the unfinished steps.

        Stops after the measurement if the model is below the floor, and before the training if the rewards of
        the round have no signal.

        Returns:
            The entry of this round in `loop.json`.
        """
        entry = self._sample_and_measure(sample=True)
        if entry["below_floor"]:
            return entry
        self._run_step("rewards.jsonl", self._score_command("episodes", "rewards.jsonl"))
        self._run_step("statistics.json", self._prepare_command())
        entry["groups"] = json.loads((self.folder / "statistics.json").read_text(encoding="utf-8"))
        if problem := self._missing_signal():
            entry["no_signal"] = problem
        else:
            self._run_step("trained/run.json", self._train_command())
        return entry

    def measure_only(self) -> dict[str, Any]:
        """Measures the last model without training it further. Returns the entry in `loop.json`."""
        return self._sample_and_measure(sample=False)

    def path(self, name: str) -> str:
        """Returns the path of a file of this round."""
        return str(self.folder / name)

    def _sample_and_measure(self, sample: bool) -> dict[str, Any]:
        floor = self.settings.floor
        with ExitStack() as stack:
            urls: list[str] = []

            def server_url() -> str:  # the first step that needs the server starts it
                if not urls:
                    self._check_model()
                    self.notify(f"{self.name}: serving {self.model}")
                    log = self.folder / "server.log"
                    server = serve_model(self.settings.serve, _absolute(self.model), log)
                    urls.append(stack.enter_context(server))
                return urls[0]

            entry: dict[str, Any] = {"round": self.number, "model": self.model, "below_floor": None}
            if floor is not None:
                self._sample_once(
                    "measured",
                    lambda: self._sample_command("measured", server_url(), floor.prompts, floor.samples),
                )
                self._run_step(
                    "measured-rewards.jsonl",
                    self._score_command("measured", "measured-rewards.jsonl", floor.prompts),
                )
                entry["measured"] = measure(
                    self.folder / "measured.jsonl", self.folder / "measured-rewards.jsonl"
                )
                entry["below_floor"] = below_floor(entry["measured"], floor)
            if sample and not entry["below_floor"]:
                sampling = self.settings.sampling
                self._sample_once(
                    "episodes",
                    lambda: self._sample_command(
                        "episodes", server_url(), sampling.prompts, sampling.samples
                    ),
                )
        return entry

    def _missing_signal(self) -> str | None:
        """Returns the reason why this round cannot train; None if its rewards differ or it has trained
        already."""
        from trainer.groups.statistics import has_signal

        train = self.settings.train
        cost = float(train.get("cost", 0.0)) if train.get("method") == "grpo+cost" else 0.0
        trained = (self.folder / "trained" / "run.json").exists()
        where = train.get("consult_cost_where", "always")
        if trained or has_signal(self.folder / "groups.parquet", cost, where):
            return None
        return (
            f"{self.name}: all episodes of a prompt earned the same reward, for every prompt, so training "
            "has no signal. The model has converged on these prompts, or never succeeds on them. To train "
            "further, start a loop with other prompts, more samples or a higher temperature"
        )

    def _sample_command(self, name: str, url: str, prompts: str, samples: int) -> list[str]:
        sampling = self.settings.sampling
        command = [
            *("agent.cli", "run", "--prompts", str(prompt_file(prompts)), "--samples", str(samples)),
            *("--log", self.path(f"{name}.jsonl"), "--policy-version", self.name),
            *("--base-url", url, "--model", _absolute(self.model), "--rules-url", self.rules),
            *("--temperature", str(sampling.temperature), "--max-tokens", str(sampling.max_tokens)),
            *("--max-turns", str(sampling.max_turns), "--concurrency", str(sampling.concurrency)),
            # The server is this round's own, and both commands of a round sample alike.
            *("--provider", sampling.provider, "--new-server"),
        ]
        for key, value in sampling.template_options.items():
            command += ["--template-option", f"{key}={json.dumps(value)}"]
        if sampling.seed is not None:
            command += ["--seed", str(sampling.seed + 100_000 * self.number)]
        if name == "episodes":
            for mode, share in sampling.mode_share.items():
                command += ["--mode-share", f"{mode}={share}"]
            if sampling.direct_draws is not None:
                command += ["--direct-draws", str(sampling.direct_draws)]
        return command

    def _score_command(self, log: str, out: str, prompts: str | None = None) -> list[str]:
        """Returns the command that scores a log, after running the judge if one is configured."""
        scoring = self.settings.scoring
        command = [
            *("evaluation.cli", "score", self.path(f"{log}.jsonl"), "--out", self.path(out)),
            *("--prompts", str(prompt_file(prompts or self.settings.sampling.prompts))),
            *("--format-penalty", str(scoring.format_penalty)),
        ]
        if scoring.judge:
            judgements = f"{log}-judgements.jsonl"
            options = [word for name, value in scoring.judge.items() for word in (f"--{name}", str(value))]
            self._run_step(
                judgements,
                [
                    *("evaluation.cli", "judge", "run", self.path(f"{log}.jsonl")),
                    *("--out", self.path(judgements), *options),
                ],
            )
            command += ["--judgements", self.path(judgements)]
        return command

    def _prepare_command(self) -> list[str]:
        advantages = self.settings.advantages
        return [
            *("trainer.cli", "prepare", self.path("episodes.jsonl"), self.path("rewards.jsonl")),
            *("--json", "--out", self.path("groups.parquet")),
            *("--alpha", str(advantages.alpha), "--w-max", str(advantages.w_max)),
            *("--baseline", advantages.baseline, "--scale-rewards", advantages.scale_rewards),
            *(["--keep-forced"] if self.settings.sampling.mode_share else []),
        ]

    def _train_command(self) -> list[str]:
        import yaml

        config = self.folder / "train.yaml"
        write_atomic(config, yaml.safe_dump(self.settings.train, sort_keys=False), private=False)
        return [
            *("trainer.cli", "logged", "--resume", "--config", str(config), "--model", self.model),
            *("--groups", self.path("groups.parquet"), "--out", self.path("trained")),
        ]

    def _sample_once(self, name: str, command: Callable[[], list[str]]) -> None:
        """Runs a sampling command unless it has finished, which a marker file records: a log only grows."""
        marker = self.folder / f"{name}.done"
        if not marker.exists():
            self._execute(command())
            write_atomic(marker, "", private=False)

    def _run_step(self, result: str, command: list[str]) -> None:
        """Runs a command unless its result exists. Commands write their result atomically."""
        if (self.folder / result).exists():
            return
        stdout = self._execute(command)
        if result == "statistics.json":
            write_atomic(self.folder / result, stdout, private=False)

    def _execute(self, command: list[str]) -> str:
        module, verb = command[0], command[1]
        program = PROGRAMS[module]
        if verb == "logged":
            self._check_model()
        self.notify(f"{self.name}: $ {mask_secrets_in_text(shlex.join([program, *command[1:]]))}")
        launcher = self.settings.launcher if verb == "logged" else None
        start = shlex.split(launcher) if launcher else [sys.executable, "-m"]
        # A step that outlived a killed loop would write to the same files as the step of the next loop.
        process = subprocess.run(
            [*start, *command],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
            env={**os.environ, STARTED_BY_VARIABLE: str(os.getpid())},
            preexec_fn=DIE_WITH_PARENT,
        )
        if process.returncode != 0:
            raise LoopError(
                f"{self.name}: `{program} {verb}` ended with code {process.returncode}; see its output "
                "above. Finished steps are kept: rerun the same command to resume."
            )
        if process.stdout and verb != "prepare":
            self.notify(process.stdout.rstrip())
        return process.stdout

    def _check_model(self) -> None:
        """Checks that an earlier round's model exists: a missing path would be taken for a hub name."""
        if self.number > 1 and not Path(self.model).is_dir():
            raise LoopError(
                f"{self.name}: the model {self.model}, which this round starts from, is gone: restore it, "
                "or start another loop with another --out"
            )


def _absolute(model: str) -> str:
    return str(Path(model).resolve()) if Path(model).is_dir() else model
