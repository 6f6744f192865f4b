"""Settings of the stage `online`: ours, and all of `trl.GRPOConfig`'s, those of vLLM among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from evaluation.scorers.judges.registry import make_judge
from trainer.errors import ConfigError
from trainer.stages.config import IFPOConfig, parse_run


@dataclass
class OnlineConfig(IFPOConfig):
    """`IFPOConfig` with a limit on how often an episode may consult."""

    max_tool_calling_iterations: int | None = field(
        default=3, metadata={"help": "Most rounds of consultations in one episode."}
    )


@dataclass
class OnlineArguments:
    """What `ascl-train online` needs beside TRL's settings."""

    model: str = field(metadata={"help": "Folder or hub name of the model to train."})
    prompts: str = field(
        default="builtin:train", metadata={"help": "JSON Lines of prompts, or a built-in set."}
    )
    rules: str = field(
        default="http://127.0.0.1:8808/mcp", metadata={"help": "MCP address of the rule service."}
    )
    rules_concurrency: int = field(default=64, metadata={"help": "Most consultations in flight."})
    method: Literal["ifpo", "grpo", "grpo+cost"] = field(
        default="ifpo",
        metadata={"help": "`grpo` is `alpha: 0`; `grpo+cost` prices consulting at `cost`."},
    )
    outcome_weight: float = field(default=1.0, metadata={"help": "What the outcome counts in the reward."})
    format_penalty: float = field(
        default=0.2, metadata={"help": "Cost of a malformed call, an unfinished answer or stray thoughts."}
    )
    judge: str | None = field(
        default=None, metadata={"help": "Judge of harm, such as wildguard; left out: refusals count."}
    )
    judge_url: str | None = field(default=None, metadata={"help": "Its OpenAI-compatible API."})
    judge_model: str | None = field(default=None, metadata={"help": "Its model name."})
    floor_prompts: str | None = field(
        default=None, metadata={"help": "Prompts not trained on, sampled every `eval_steps`."}
    )
    floor_consult: float | None = field(
        default=None, metadata={"help": "Least consult rate on the harmful ones; below it, training stops."}
    )
    lora_rank: int = field(default=16, metadata={"help": "Rank of the adapter."})
    lora_layers: int = field(
        default=999, metadata={"help": "How many layers get an adapter, counted from the top."}
    )
    resume: bool = field(default=False, metadata={"help": "Go on from the last checkpoint in the folder."})


def parse_online(config: Path | None, options: Sequence[str]) -> tuple[OnlineArguments, OnlineConfig]:
    """Settings from a YAML file, overridden by `--key value` options.

    Raises:
        ConfigError: an unreadable file, an unknown key (the nearest known one is named), a wrong value.
    """
    arguments, settings = parse_run(config, options, OnlineArguments, OnlineConfig)
    if not arguments.rules:
        raise ConfigError(
            "no rule service is given: set rules to its address, as `ascl-rules serve` prints it"
        )
    for name in ("lora_rank", "lora_layers", "rules_concurrency"):
        if getattr(arguments, name) < 1:
            raise ConfigError(f"{name} is {getattr(arguments, name)}, but at least 1 is needed")
    for name in ("outcome_weight", "format_penalty"):
        if not 0 <= getattr(arguments, name) < float("inf"):
            raise ConfigError(f"{name} is {getattr(arguments, name)}, but a number from 0 up is needed")
    if arguments.judge and not (arguments.judge_url and arguments.judge_model):
        raise ConfigError("a judge needs an address: set judge_url and judge_model")
    if arguments.judge:
        try:
            make_judge(arguments.judge)
        except ValueError as error:
            raise ConfigError(f"judge: {error}") from None
    if arguments.floor_consult is not None and not 0 <= arguments.floor_consult <= 1:
        raise ConfigError(f"floor_consult is {arguments.floor_consult:g}, but it is a share from 0 to 1")
    if arguments.floor_consult is not None and arguments.floor_prompts is None:
        raise ConfigError("floor_consult needs prompts to look at: set floor_prompts: builtin:held_out")
    if arguments.floor_prompts is not None and settings.eval_strategy == "no":
        raise ConfigError(
            "floor_prompts are sampled as often as eval_strategy says: set eval_strategy: steps"
        )
    if (arguments.method == "grpo+cost") != (settings.cost > 0):
        raise ConfigError("a price belongs to grpo+cost alone: set method: grpo+cost and cost, or neither")
    if arguments.method != "ifpo":
        settings.alpha = 0.0
    return arguments, settings
