"""Plans and runs the commands of a training run on one GPU, several GPUs or several nodes.

Distribution is left to other tools: `accelerate launch` starts the trainers (FSDP2 shards the weights),
`vllm serve` samples, and TRL sends it the new weights after every update.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TextIO

from evaluation.runtime import DIE_WITH_PARENT, ReadinessCheck
from trainer.errors import ConfigError, TrainingError
from trainer.orchestration.gpu_memory import (
    GIB,
    MemoryEstimate,
    ModelShape,
    estimate_gpu_memory,
    model_shape,
)
from trainer.orchestration.model_server import STARTED_BY_VARIABLE, run_service
from trainer.stages import Notify, mask_secrets_in_text

Stage = Literal["online", "logged"]
FSDP2 = Path(__file__).parents[1] / "recipes" / "fsdp2.yaml"
RULES_OPTIONS = ("--rules-url", "--rules_url", "--rules")
VLLM_PORT, JUDGE_PORT, RULES_PORT, MAIN_PORT = 8000, 8001, 8808, 29500


@dataclass(frozen=True)
class Machines:
    """The hardware of a run."""

    gpus: int = 1
    """GPUs per node; 0 for CPU."""
    vllm_gpus: int = 0
    """Number of the first node's GPUs that serve vLLM; 0 if the trainers sample themselves."""
    judge_gpus: int = 0
    """Number of the first node's GPUs that serve the judge of harm; 0 if it is served elsewhere, or not
    used."""
    nodes: int = 1
    node: int = 0
    """Index of this node, from 0."""
    main: str = "127.0.0.1"
    """Address at which the other nodes reach the first one."""
    processes: int | None = None
    """Trainer processes per node; None for one per GPU that does not serve."""
    gpu_gib: float = 80

    @property
    def trainers(self) -> int:
        """Number of trainer processes on all nodes."""
        if self.processes is not None:
            return self.processes * self.nodes
        return max(self.gpus * self.nodes - self.serving, 1)

    @property
    def serving(self) -> int:
        """Number of GPUs of the first node that serve models."""
        return self.vllm_gpus + self.judge_gpus

    def check(self, stage: Stage) -> None:
        """Checks that the stage can run on this hardware.

        Raises:
            ConfigError: it cannot; the message says what to change.
        """
        if self.vllm_gpus and stage == "logged":
            raise ConfigError("the logged stage samples no episodes, so nothing is served: omit --vllm-gpus")
        if self.judge_gpus and stage == "logged":
            raise ConfigError("the logged stage judges no episodes: omit --judge-gpus")
        if self.serving >= self.gpus > 0:
            raise ConfigError(
                f"{self.serving} of {self.gpus} GPUs would serve and none train: pass a smaller --vllm-gpus"
                + (" or --judge-gpus" if self.judge_gpus else "")
            )
        if not 0 <= self.node < self.nodes:
            raise ConfigError(f"--node is {self.node}, but the {self.nodes} nodes are numbered from 0")
        if self.nodes > 1 and self.main == "127.0.0.1":
            raise ConfigError(
                "every node must reach the first one: pass its address with --main on each node"
            )
        if self.nodes > 1 and self.judge_gpus:
            raise ConfigError(
                "with several nodes, the judge needs a machine of its own: start it there with `vllm serve`, "
                "set judge_url to its address, and leave out --judge-gpus"
            )
        if self.nodes > 1 and self.vllm_gpus:
            # accelerate starts the same number of processes on each node, so a node either serves or trains.
            raise ConfigError(
                "with several nodes, vLLM needs a node of its own: start it there with `vllm serve`, pass "
                "its address as --vllm_server_base_url, and leave out --vllm-gpus"
            )


@dataclass(frozen=True)
class Command:
    """A command with its environment."""

    title: str
    words: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    answers_at: str | None = None
    """URL that answers once the command is ready: it runs in the background. None for the training itself."""

    @property
    def log_name(self) -> str:
        """Name of the file of its output: that of the program, or `judge` for the judge's vLLM."""
        return "judge" if self.title == "the judge" else self.words[0]

    def line(self) -> str:
        """Returns the command as a shell line."""
        assignments = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        return " ".join([*assignments, shlex.join(self.words)])


def plan(
    stage: Stage,
    config: Path,
    model: str,
    out: Path,
    machines: Machines,
    extra: list[str] | None = None,
    rules_served: bool = False,
    judge_model: str | None = None,
) -> list[Command]:
    """Returns the commands of this node, in start order.

    Args:
        extra: options for the stage.
        rules_served: the configuration names a rule service that already runs.
        judge_model: model that judges harm, to be served on `machines.judge_gpus`.

    Raises:
        ConfigError: the stage cannot run on these machines.
    """
    machines.check(stage)
    _check_split("--vllm-gpus", machines.vllm_gpus, model)
    commands: list[Command] = []
    options = list(extra or [])
    serve = stage == "online" and not rules_served
    serve &= not any(option.partition("=")[0] in RULES_OPTIONS for option in options)
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
        options += ["--rules_url", f"http://{machines.main}:{RULES_PORT}/mcp"]
    if machines.vllm_gpus:
        commands.append(_vllm_command(model, machines))
        options += ["--use_vllm", "true", "--vllm_mode", "server"]
        options += ["--vllm_server_base_url", f"http://{machines.main}:{VLLM_PORT}"]
    if machines.judge_gpus and judge_model:
        _check_split("--judge-gpus", machines.judge_gpus, judge_model)
        commands.append(_judge_command(judge_model, machines))
        options += ["--judge_url", f"http://{machines.main}:{JUDGE_PORT}/v1"]
    commands.append(_training_command(stage, config, model, out, machines, options))
    return commands


def _check_split(option: str, gpus: int, model: str) -> None:
    """Checks that vLLM can split the attention heads of a model over the GPUs.

    Raises:
        ConfigError: it cannot; the message names the numbers that would work.
    """
    shape = model_shape(model) if gpus > 1 else None
    if shape is None or _splits(shape, gpus):
        return
    possible = ", ".join(str(count) for count in range(1, gpus) if _splits(shape, count))
    raise ConfigError(
        f"{model} has {shape.heads} attention heads and {shape.kv_heads} key-value heads, which vLLM cannot "
        f"split over {gpus} GPUs: pass {option} with one of {possible}"
    )


def _splits(shape: ModelShape, gpus: int) -> bool:
    # vLLM gives each GPU the same number of heads; with fewer key-value heads than GPUs, it copies them.
    even = shape.kv_heads % gpus == 0 if shape.kv_heads >= gpus else gpus % shape.kv_heads == 0
    return shape.heads % gpus == 0 and even


def _judge_command(model: str, machines: Machines) -> Command:
    devices = ",".join(map(str, range(machines.vllm_gpus, machines.serving)))
    words = ["vllm", "serve", model, "--port", str(JUDGE_PORT)]
    words += ["--tensor-parallel-size", str(machines.judge_gpus)]
    return Command(
        "the judge",
        words,
        {"CUDA_VISIBLE_DEVICES": devices},
        answers_at=f"http://127.0.0.1:{JUDGE_PORT}/v1/models",
    )


def _vllm_command(model: str, machines: Machines) -> Command:
    words = ["vllm", "serve", model, "--port", str(VLLM_PORT)]
    words += ["--tensor-parallel-size", str(machines.vllm_gpus)]
    # TRL sends weights over NCCL, and reads log-probabilities of the distribution that was sampled from.
    words += ["--weight-transfer-config", '{"backend":"nccl"}']
    words += ["--logprobs-mode", "processed_logprobs", "--max-logprobs", "-1"]
    devices = ",".join(map(str, range(machines.vllm_gpus)))
    return Command(
        "the sampler",
        words,
        {"CUDA_VISIBLE_DEVICES": devices, "VLLM_SERVER_DEV_MODE": "1"},
        answers_at=f"http://127.0.0.1:{VLLM_PORT}/health",
    )


def _training_command(
    stage: Stage, config: Path, model: str, out: Path, machines: Machines, options: list[str]
) -> Command:
    words = ["accelerate", "launch"]
    environment = {}
    if machines.gpus == 0:
        words += ["--mixed_precision", "no"]
        environment["ACCELERATE_USE_CPU"] = "true"
        # This flag starts several processes without MPI, also on CPUs.
        words += ["--multi_gpu"] if machines.trainers > 1 else ["--cpu"]
    elif machines.trainers > 1 and stage == "online":
        words += ["--config_file", str(FSDP2)]
    else:
        # The logged stage runs the model before training, so every GPU needs the whole model.
        words += ["--mixed_precision", "bf16", *(["--multi_gpu"] if machines.trainers > 1 else [])]
    if machines.serving:
        devices = ",".join(map(str, range(machines.serving, machines.gpus)))
        environment["CUDA_VISIBLE_DEVICES"] = devices
    words += ["--num_processes", str(machines.trainers), "--num_machines", str(machines.nodes)]
    if machines.nodes == 1 and machines.trainers > 1:
        words += ["--main_process_port", "0"]  # a free port, so that several runs can share a machine
    if machines.nodes > 1:
        words += ["--machine_rank", str(machines.node), "--main_process_ip", machines.main]
        words += ["--main_process_port", str(MAIN_PORT)]
    words += ["--dynamo_backend", "no", "-m", "trainer.cli", stage, "--config", str(config)]
    words += ["--model", model, "--out", str(out), *options]
    return Command("the training", words, environment)


def estimate_memory(
    stage: Stage, config: dict[str, Any], model: str, machines: Machines
) -> MemoryEstimate | None:
    """Estimates the memory of a run; None for a model of unknown shape, or without GPUs.

    Args:
        config: settings of the stage, those of the command line included.

    Raises:
        ConfigError: the model is not from a supported family, or `lora_rank` is negative.
    """
    shape = model_shape(model)
    if shape is None or machines.gpus == 0:
        return None
    colocated = 0.0
    if config.get("use_vllm") and config.get("vllm_mode", "colocate") == "colocate":
        colocated = _number(config, "vllm_gpu_memory_utilization", 0.3)
    if (rank := int(_number(config, "lora_rank", 16))) < 0:
        raise ConfigError(f"lora_rank is {rank}, but it must be at least 0: 0 trains all weights")
    length = _number(config, "max_length", 0) or 1024 + _number(config, "max_completion_length", 512)
    return estimate_gpu_memory(
        shape,
        trainers=machines.trainers if stage == "online" else 1,  # logged: not sharded
        vllm_gpus=machines.vllm_gpus,
        gpu_gib=machines.gpu_gib,
        rank=rank,
        reference=_number(config, "beta", 0.0) > 0,
        replicas=stage == "logged" and machines.trainers > 1,
        rows=int(_number(config, "per_device_train_batch_size", 8)),
        tokens=int(length),
        colocated=colocated,
    )


def settings_of_options(options: list[str]) -> dict[str, Any]:
    """Returns the settings that options such as `--lora_rank 0` override, for `estimate_memory`."""
    import yaml

    settings: dict[str, Any] = {}
    for word, following in zip(options, [*options[1:], "--"], strict=False):
        if not word.startswith("--"):
            continue
        name, assigned, value = word[2:].partition("=")
        if assigned or not following.startswith("--"):
            try:
                settings[name.replace("-", "_")] = yaml.safe_load(value if assigned else following)
            except yaml.YAMLError:
                continue  # the stage's own parser judges it
    return settings


def _number(config: dict[str, Any], name: str, default: float) -> float:
    value = config.get(name)
    try:
        return default if value is None else float(value)
    except (TypeError, ValueError):
        raise ConfigError(f"{name} is {value!r}, but it must be a number") from None


def format_estimate(memory: MemoryEstimate, machines: Machines) -> str:
    """Formats an estimate as a sentence."""
    sizes = {
        "weights": memory.weights,
        **({"adapter and Adam": memory.adapter} if memory.adapter else {}),
        **({"gradients and Adam": memory.optimizer} if memory.optimizer else {}),
        "gathered copies": memory.gathered,
        "activations": memory.activations,
        "logits": memory.logits,
    }
    contents = ", ".join(f"{name} {size / GIB:.1f}" for name, size in sizes.items())
    verdict = "fits" if memory.fits(machines.gpu_gib) else "DOES NOT FIT"
    cache = f"; vLLM has {memory.cache_tokens // 1000} 000 tokens of cache" if memory.cache_tokens else ""
    return (
        f"about {memory.trainer / GIB:.1f} GiB on each of {machines.trainers} trainer GPUs ({contents}), "
        f"which {verdict} {machines.gpu_gib:g} GiB{cache}"
    )


def run_plan(
    commands: list[Command],
    logs: Path,
    notify: Notify = lambda line: None,
    output: TextIO | None = None,
) -> None:
    """Starts the services, waits until they answer, runs the training, and stops the services.

    Args:
        output: stream for the training's output; None for standard output.

    Raises:
        ServeError: a service does not start.
        TrainingError: the training failed. Its own output says why.
    """
    with ExitStack() as stack:
        for command in commands:
            notify(f"$ {mask_secrets_in_text(command.line())}")
            environment = {**os.environ, **command.environment}
            if command.answers_at is not None:
                log = logs / f"{command.log_name}.log"
                ready = ReadinessCheck((command.answers_at,))
                stack.enter_context(run_service(command.words, log, ready, environment=environment))
                continue
            # `accelerate launch` of this environment, not of PATH.
            words = [sys.executable, "-m", "accelerate.commands.launch", *command.words[2:]]
            environment[STARTED_BY_VARIABLE] = str(os.getpid())
            code = subprocess.run(
                words, env=environment, check=False, stdout=output, preexec_fn=DIE_WITH_PARENT
            ).returncode
            if code != 0:
                raise TrainingError(f"the training ended with code {code}; see its output above")
