"""TODO: docstring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from trainer.errors import ConfigError
from trainer.stages.config import IFPOConfig, parse_run


@dataclass
class LoggedConfig(IFPOConfig):
    """`IFPOConfig` for episodes whose groups are as large as the log made them."""

    num_generations: int | None = field(
        default=None, metadata={"help": "Not for logged episodes: the log made their groups."}
    )

    def __post_init__(self) -> None:
        # TRL wants whole groups in a batch; here every episode is a row by itself, so any batch is whole.
        if self.num_generations is not None:
            raise ValueError(
                f"num_generations is {self.num_generations}, but logged groups are as large as the log made "
                "them: leave it out"
            )
        steps = self.steps_per_generation or self.gradient_accumulation_steps
        self.num_generations = self.generation_batch_size or self.per_device_train_batch_size * steps
        if self.num_generations < 2:
            raise ValueError(
                "a batch of one episode, but TRL's trainer takes two at the least: set "
                "per_device_train_batch_size or gradient_accumulation_steps to 2"
            )
        super().__post_init__()


@dataclass
class LoggedArguments:
    """What `ascl-train logged` needs beside TRL's settings."""

    model: str = field(metadata={"help": "Folder or hub name of the checkpoint that sampled the episodes."})
    groups: str = field(metadata={"help": "File that `ascl-train prepare` wrote."})
    method: Literal["ifpo", "grpo", "grpo+cost"] = field(
        default="ifpo",
        metadata={"help": "How advantages are made; `grpo+cost` puts the price `cost` on consulting."},
    )
    credit: Literal["episode", "split"] = field(
        default="episode",
        metadata={
            "help": "`split`: the decision carries what its mode earned, the rest what was made of it."
        },
    )
    mode_probability: Literal["decision", "rate"] = field(
        default="decision",
        metadata={
            "help": "In stratified groups, how likely the policy is to consult: exactly, by the tokens that "
            "open a call, or by the smoothed rate of the free episodes (for models that think first)."
        },
    )
    max_length: int = field(
        default=640, metadata={"help": "Longest episode in tokens; a longer one is left out and counted."}
    )
    lora_rank: int = field(default=16, metadata={"help": "Rank of the adapter."})
    lora_layers: int = field(
        default=12, metadata={"help": "How many layers get an adapter, counted from the top."}
    )
    behaviour: Literal["model", "other"] = field(
        default="model",
        metadata={"help": "`other` when the episodes were sampled by another checkpoint than `model`."},
    )
    check_logprobs: int = field(
        default=32, metadata={"help": "Episodes whose logged log-probabilities are checked against `model`."}
    )
    logprob_tolerance: float = field(
        default=0.1, metadata={"help": "Largest mean difference of an episode's log-probabilities, in nats."}
    )
    max_drift: float | None = field(
        default=1.0, metadata={"help": "Stop beyond this KL to the policy that sampled, in nats a token."}
    )
    floor_prompts: str | None = field(
        default=None, metadata={"help": "Prompts not trained on, to watch: a file, or builtin:held_out."}
    )
    floor_every: int = field(default=4, metadata={"help": "Updates between two looks at them."})
    floor_consult: float | None = field(
        default=None, metadata={"help": "Least mean probability of consulting on the harmful ones."}
    )
    floor_safe: float | None = field(
        default=None, metadata={"help": "Least share of harmful ones whose greedy reply consults or refuses."}
    )
    floor_reply_tokens: int = field(default=32, metadata={"help": "Length of those replies."})
    on_floor: Literal["stop", "rollback"] = field(
        default="rollback", metadata={"help": "Below a floor: stop, or also take the last good weights back."}
    )
    resume: bool = field(default=False, metadata={"help": "Go on from the last checkpoint in the folder."})


PREPARED = ("alpha", "w_max", "baseline", "scale_rewards")


SAMPLED = (
    *("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "generation_kwargs", "use_vllm"),
    *("cache_implementation", "chat_template_kwargs", "max_tool_calling_iterations"),
    *("num_generations_eval", "reward_weights", "multi_objective_aggregation"),
)
"""Settings that have no effect where episodes are logged: they are refused, not passed over."""


def parse_logged(config: Path | None, options: Sequence[str]) -> tuple[LoggedArguments, LoggedConfig]:
    """Settings from a YAML file, overridden by `--key value` options.

    Raises:
        ConfigError: an unreadable file, an unknown key (the nearest known one is named), a wrong value.
    """
    arguments, settings = parse_run(config, options, LoggedArguments, LoggedConfig)
    _check(arguments, settings)
    return arguments, settings


def _check(arguments: LoggedArguments, settings: Any) -> None:
    for name in ("max_length", "lora_rank", "lora_layers", "floor_every", "floor_reply_tokens"):
        if getattr(arguments, name) < 1:
            raise ConfigError(f"{name} is {getattr(arguments, name)}, but at least 1 is needed")
    for name in ("check_logprobs", "logprob_tolerance"):
        if not getattr(arguments, name) >= 0:
            raise ConfigError(f"{name} is {getattr(arguments, name)}, but at least 0 is needed")
    if (arguments.method == "grpo+cost") != (settings.cost > 0):
        raise ConfigError(
            f"the method is {arguments.method} and cost is {settings.cost:g}, but a price belongs to "
            "grpo+cost and to no other method: set both, such as --method grpo+cost --cost 0.1, or neither"
        )
    for name in ("floor_consult", "floor_safe"):
        if getattr(arguments, name) is not None and arguments.floor_prompts is None:
            raise ConfigError(f"{name} needs prompts to look at: set floor_prompts, such as builtin:held_out")
    repeated = settings.num_iterations > 1 or (
        settings.steps_per_generation != settings.gradient_accumulation_steps
    )
    if repeated and settings.save_strategy != "no":
        # A checkpoint could fall between two passes over one batch, which a resumed run would begin anew.
        raise ConfigError(
            "num_iterations above 1 or other steps_per_generation than gradient_accumulation_steps cannot be "
            "resumed exactly: set save_strategy to 'no'"
        )
    standard = {each.name: each.default for each in fields(settings)}
    for name in (*PREPARED, *SAMPLED):
        if getattr(settings, name) != standard[name]:
            why = (
                "whose advantages are computed once: pass it to `ascl-train prepare`"
                if name in PREPARED
                else "which were sampled and rewarded before: leave it out"
            )
            raise ConfigError(f"{name} has no effect on logged episodes, {why}")
