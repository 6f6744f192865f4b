"""The commands of a training run on one GPU, on eight, or on several nodes: printed, or run.

Nothing of our own distributes anything: `accelerate launch` starts the trainers (FSDP2 shards the frozen
weights), `vllm serve` samples, and TRL sends it the new weights after every update.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TextIO

from evaluation.runtime import DIE_WITH_PARENT, ReadinessCheck
from trainer.errors import ConfigError, TrainingError
from trainer.orchestration.gpu_memory import GIB, Estimate, estimate, shape_of
from trainer.orchestration.model_server import STARTED_BY, supervise
from trainer.stages import mask_secrets_in_text

Stage = Literal["online", "logged"]
FSDP2 = Path(__file__).parents[1] / "recipes" / "fsdp2.yaml"
VLLM_PORT, RULES_PORT, MAIN_PORT = 8000, 8808, 29500


@dataclass(frozen=True)
class Machines:
    """What there is to run on."""

    gpus: int = 1
    """GPUs of each node; 0 for a CPU."""
    vllm_gpus: int = 0
    """Of these, how many serve vLLM, on the first node; 0 lets the trainers sample by themselves."""
    nodes: int = 1
    node: int = 0
    """Which of them this is, from 0."""
    main: str = "127.0.0.1"
    """Address of the first node, as the others reach it."""
    processes: int | None = None
    """Trainer processes of a node; None for one a GPU that does not serve."""
    gpu_gib: float = 80

    @property
    def trainers(self) -> int:
        """Trainer processes of all nodes."""
        if self.processes is not None:
            return self.processes * self.nodes
        return max(self.gpus * self.nodes - self.vllm_gpus, 1)

    def check(self, stage: Stage) -> None:
        """Refuse what cannot run.

        Raises:
            ConfigError: with what to change.
        """
        if self.vllm_gpus and stage == "logged":
            raise ConfigError("logged episodes are not sampled, so nothing is served: leave out --vllm-gpus")
        if self.vllm_gpus >= self.gpus > 0:
            raise ConfigError(
                f"{self.vllm_gpus} of {self.gpus} GPUs would serve and none train: give fewer to --vllm-gpus"
            )
        if not 0 <= self.node < self.nodes:
            raise ConfigError(f"--node is {self.node}, but {self.nodes} nodes are numbered from 0")
        if self.nodes > 1 and self.main == "127.0.0.1":
            raise ConfigError(
                "several nodes must reach the first one: pass its address with --main, on each of them"
            )
        if self.nodes > 1 and self.vllm_gpus:
            # accelerate takes as many processes on each node, so a node serves whole or not at all.
            raise ConfigError(
                "with several nodes, vLLM stands on a node of its own: start it there by `vllm serve`, pass "
                "its address as --vllm_server_base_url, and leave out --vllm-gpus"
            )


@dataclass(frozen=True)
class Command:
    """One command, with what it needs around it."""

    title: str
    words: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    answers_at: str | None = None
    """A URL that answers when it is ready: it runs beside the training. None for the training itself."""

    def line(self) -> str:
        """As it would be typed."""
        given = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        return " ".join([*given, shlex.join(self.words)])


def plan(
    stage: Stage,
    config: Path,
    model: str,
    out: Path,
    machines: Machines,
    extra: list[str] | None = None,
    rules_served: bool = False,
) -> list[Command]:
    """The commands of this node, in the order in which they are started.

    Args:
        extra: options for the stage.
        rules_served: the configuration names a rule service of the user's own.

    Raises:
        ConfigError: what cannot run on these machines.
    """
    machines.check(stage)
    commands: list[Command] = []
    options = list(extra or [])
    serve = stage == "online" and not rules_served
    serve &= not any(option.partition("=")[0] == "--rules" for option in options)
    if serve and machines.node == 0:
        host = [] if machines.nodes == 1 else ["--host", "0.0.0.0", "--allow-anonymous"]  # noqa: S104
        commands.append(
            Command(
                "the rules",
                ["ascl-rules", "serve", "--port", str(RULES_PORT), *host],
                answers_at=f"http://127.0.0.1:{RULES_PORT}/readyz",
            )
        )
    if serve:
        options += ["--rules", f"http://{machines.main}:{RULES_PORT}/mcp"]
    if machines.vllm_gpus:
        commands.append(_vllm(model, machines))
        options += ["--use_vllm", "true", "--vllm_mode", "server"]
        options += ["--vllm_server_base_url", f"http://{machines.main}:{VLLM_PORT}"]
    commands.append(_training(stage, config, model, out, machines, options))
    return commands


def _vllm(model: str, machines: Machines) -> Command:
    words = ["vllm", "serve", model, "--port", str(VLLM_PORT)]
    words += ["--tensor-parallel-size", str(machines.vllm_gpus)]
    # TRL sends weights over NCCL, and reads the log-probabilities of what was really sampled from.
    words += ["--weight-transfer-config", '{"backend":"nccl"}']
    words += ["--logprobs-mode", "processed_logprobs", "--max-logprobs", "-1"]
    devices = ",".join(map(str, range(machines.vllm_gpus)))
    return Command(
        "the sampler",
        words,
        {"CUDA_VISIBLE_DEVICES": devices, "VLLM_SERVER_DEV_MODE": "1"},
        answers_at=f"http://127.0.0.1:{VLLM_PORT}/health",
    )


def _training(
    stage: Stage, config: Path, model: str, out: Path, machines: Machines, options: list[str]
) -> Command:
    words = ["accelerate", "launch"]
    environment = {}
    if machines.gpus == 0:
        words += ["--mixed_precision", "no"]
        environment["ACCELERATE_USE_CPU"] = "true"
        # What starts several processes without MPI is called so on CPUs too.
        words += ["--multi_gpu"] if machines.trainers > 1 else ["--cpu"]
    elif machines.trainers > 1 and stage == "online":
        words += ["--config_file", str(FSDP2)]
    else:
        # A replay asks the model before it trains, so it needs the model whole on every GPU.
        words += ["--mixed_precision", "bf16", *(["--multi_gpu"] if machines.trainers > 1 else [])]
    if machines.vllm_gpus:
        devices = ",".join(map(str, range(machines.vllm_gpus, machines.gpus)))
        environment["CUDA_VISIBLE_DEVICES"] = devices
    words += ["--num_processes", str(machines.trainers), "--num_machines", str(machines.nodes)]
    if machines.nodes == 1 and machines.trainers > 1:
        words += ["--main_process_port", "0"]  # a free one, so that several runs share a machine
    if machines.nodes > 1:
        words += ["--machine_rank", str(machines.node), "--main_process_ip", machines.main]
        words += ["--main_process_port", str(MAIN_PORT)]
    words += ["--dynamo_backend", "no", "-m", "trainer.cli", stage, "--config", str(config)]
    words += ["--model", model, "--out", str(out), *options]
    return Command("the training", words, environment)


def estimate_memory(stage: Stage, config: dict[str, Any], model: str, machines: Machines) -> Estimate | None:
    """The memory that the run would need; None for a model of unknown shape, or without a GPU.

    Raises:
        ConfigError: the model's configuration is of another family.
    """
    shape = shape_of(model)
    if shape is None or machines.gpus == 0:
        return None
    colocated = 0.0
    if config.get("use_vllm") and config.get("vllm_mode", "colocate") == "colocate":
        colocated = float(config.get("vllm_gpu_memory_utilization", 0.3))
    length = int(config.get("max_length", 0)) or 1024 + int(config.get("max_completion_length", 512))
    return estimate(
        shape,
        trainers=machines.trainers if stage == "online" else 1,  # logged: whole on every GPU
        vllm_gpus=machines.vllm_gpus,
        gpu_gib=machines.gpu_gib,
        rank=int(config.get("lora_rank", 16)),
        rows=int(config.get("per_device_train_batch_size", 8)),
        tokens=length,
        colocated=colocated,
    )


def format_estimate(made: Estimate, machines: Machines) -> str:
    """An estimate in a sentence or two."""
    parts = {
        "weights": made.weights,
        "adapter and Adam": made.adapter,
        "gathered layers": made.gathered,
        "activations": made.activations,
        "logits": made.logits,
    }
    shown = ", ".join(f"{name} {size / GIB:.1f}" for name, size in parts.items())
    verdict = "fits" if made.fits(machines.gpu_gib) else "DOES NOT FIT"
    cache = f"; vLLM keeps {made.cache_tokens // 1000} 000 tokens of cache" if made.cache_tokens else ""
    return (
        f"about {made.trainer / GIB:.1f} GiB on each of {machines.trainers} trainer GPUs ({shown}), which "
        f"{verdict} {machines.gpu_gib:g} GiB{cache}"
    )


def run_plan(
    commands: list[Command],
    logs: Path,
    say: Callable[[str], None] = lambda line: None,
    output: TextIO | None = None,
) -> None:
    """Start what runs beside, wait until it answers, train, and stop it again.

    Args:
        output: where the training prints, in place of our own standard output.

    Raises:
        ServeError: a service does not start.
        TrainingError: the training failed; what it said stands above.
    """
    with ExitStack() as stack:
        for command in commands:
            say(f"$ {mask_secrets_in_text(command.line())}")
            environment = {**os.environ, **command.environment}
            if command.answers_at is not None:
                log = logs / f"{command.words[0]}.log"
                ready = ReadinessCheck((command.answers_at,))
                stack.enter_context(supervise(command.words, log, ready, environment=environment))
                continue
            # `accelerate launch` of this very environment, whatever the path says.
            words = [sys.executable, "-m", "accelerate.commands.launch", *command.words[2:]]
            environment[STARTED_BY] = str(os.getpid())
            code = subprocess.run(
                words, env=environment, check=False, stdout=output, preexec_fn=DIE_WITH_PARENT
            ).returncode
            if code != 0:
                raise TrainingError(f"the training ended with code {code}; what it said stands above")
