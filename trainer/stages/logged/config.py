"""Settings of the stage `logged`: its own arguments, and those of `trl.GRPOConfig` that apply to a log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from trainer.errors import ConfigError
from trainer.stages.config import IFPOConfig, parse_run
from trainer.stages.model_io import resolve_lora_layers


@dataclass
class LoggedConfig(IFPOConfig):
    """`IFPOConfig` for logged episodes, whose log determines the size of their groups."""

    num_generations: int | None = field(
        default=None, metadata={"help": "Refused: the log determines the size of the groups."}
    )

    def __post_init__(self) -> None:
        # TRL requires whole groups in a batch. Here a row stands alone, so the batch serves as the group.
        if self.num_generations is not None:
            raise ValueError(
                f"num_generations is {self.num_generations}, but the log determines the size of logged "
                "groups: remove it"
            )
        steps = self.steps_per_generation or self.gradient_accumulation_steps
        self.num_generations = self.generation_batch_size or self.per_device_train_batch_size * steps
        if self.num_generations < 2:
            raise ValueError(
                "the batch holds one episode, but TRL's trainer needs at least two: set "
                "per_device_train_batch_size or gradient_accumulation_steps to 2"
            )
        super().__post_init__()


@dataclass
class LoggedArguments:
    """Arguments of `ascl-train logged` besides TRL's settings."""

    model: str = field(metadata={"help": "Folder or hub name of the checkpoint that sampled the episodes."})
    groups: str = field(metadata={"help": "Groups file written by `ascl-train prepare`."})
    method: Literal["ifpo", "grpo", "grpo+cost"] = field(
        default="ifpo",
        metadata={"help": "How advantages are computed; `grpo+cost` subtracts `cost` per consultation."},
    )
    credit: Literal["episode", "split"] = field(
        default="episode",
        metadata={
            "help": "`split`: the decision carries its mode's advantage, later tokens that within the mode."
        },
    )
    mode_probability: Literal["decision", "rate"] = field(
        default="decision",
        metadata={
            "help": "How to measure the policy's probability of consulting in stratified groups: `decision`, "
            "by the tokens that open a call, or `rate`, by the free episodes (for models that think first)."
        },
    )
    max_length: int = field(
        default=640,
        metadata={"help": "Maximum episode length in tokens; longer ones are skipped and counted."},
    )
    lora_rank: int = field(
        default=16, metadata={"help": "Rank of the adapter; 0 trains all weights, without an adapter."}
    )
    lora_layers: int | None = field(
        default=None,
        metadata={"help": "Number of layers with an adapter, counted from the top (default: 12)."},
    )
    behaviour: Literal["model", "other"] = field(
        default="model",
        metadata={"help": "`other` if another checkpoint than `model` sampled the episodes."},
    )
    check_logprobs: int = field(
        default=32,
        metadata={"help": "Number of episodes whose log-probabilities are checked against `model`."},
    )
    logprob_tolerance: float = field(
        default=0.1, metadata={"help": "Maximum mean difference of an episode, in nats per token."}
    )
    max_drift: float | None = field(
        default=1.0,
        metadata={
            "help": "Maximum KL to the policy that sampled, in nats per token; above it, training stops."
        },
    )
    floor_prompts: str | None = field(
        default=None, metadata={"help": "Held-out prompts of the safety floor: a file, or builtin:held_out."}
    )
    floor_every: int = field(default=4, metadata={"help": "Updates between two measurements of the floor."})
    floor_consult: float | None = field(
        default=None, metadata={"help": "Minimum mean probability of consulting on harmful ones."}
    )
    floor_safe: float | None = field(
        default=None,
        metadata={"help": "Minimum share of harmful ones whose greedy reply consults or refuses."},
    )
    floor_reply_tokens: int = field(default=32, metadata={"help": "Length of these replies in tokens."})
    on_floor: Literal["stop", "rollback"] = field(
        default="rollback",
        metadata={"help": "Action below the floor: stop, or also restore the last good weights."},
    )
    resume: bool = field(default=False, metadata={"help": "Resume from the last checkpoint in the folder."})

    def __post_init__(self) -> None:
        self.lora_layers = resolve_lora_layers(self.lora_rank, self.lora_layers, default=12)


PREPARE_SETTINGS = ("alpha", "w_max", "baseline", "scale_rewards")
"""Settings that `ascl-train prepare` applies: they are refused here."""
SAMPLING_SETTINGS = (
    *("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "generation_kwargs", "use_vllm"),
    *("cache_implementation", "chat_template_kwargs", "max_tool_calling_iterations"),
    *("num_generations_eval", "reward_weights", "multi_objective_aggregation"),
)
"""Settings of sampling, which have no effect on logged episodes: they are refused rather than ignored."""


def parse_logged(config: Path | None, options: Sequence[str]) -> tuple[LoggedArguments, LoggedConfig]:
    """Parses settings from a YAML file; `--key value` options override it.

    Raises:
        ConfigError: the file cannot be read, a key is unknown, or a value is invalid.
    """
    arguments, settings = parse_run(config, options, LoggedArguments, LoggedConfig)
    _check(arguments, settings)
    return arguments, settings


def _check(arguments: LoggedArguments, settings: Any) -> None:
    for name in ("max_length", "floor_every", "floor_reply_tokens"):
        if getattr(arguments, name) < 1:
            raise ConfigError(f"{name} is {getattr(arguments, name)}, but it must be at least 1")
    for name in ("check_logprobs", "logprob_tolerance"):
        if not getattr(arguments, name) >= 0:
            raise ConfigError(f"{name} is {getattr(arguments, name)}, but it must be at least 0")
    if (arguments.method == "grpo+cost") != (settings.cost > 0):
        raise ConfigError(
            f"the method is {arguments.method} and cost is {settings.cost:g}, but a cost requires grpo+cost "
            "and grpo+cost a cost: set both, such as --method grpo+cost --cost 0.1, or neither"
        )
    for name in ("floor_consult", "floor_safe"):
        if getattr(arguments, name) is not None and arguments.floor_prompts is None:
            raise ConfigError(f"{name} needs held-out prompts: set floor_prompts, such as builtin:held_out")
    if settings.alpha_end is not None:
        raise ConfigError(
            "alpha_end has no effect on logged episodes, whose advantages are computed once: remove it"
        )
    if settings.harmful_floor is not None and arguments.floor_prompts is None:
        raise ConfigError(
            "harmful_floor needs held-out prompts to measure: set floor_prompts, such as builtin:held_out"
        )
    repeated = settings.num_iterations > 1 or (
        settings.steps_per_generation != settings.gradient_accumulation_steps
    )
    if repeated and settings.save_strategy != "no":
        # A checkpoint may fall between two passes of one batch, and a resumed run would restart that batch.
        raise ConfigError(
            "a run with num_iterations above 1, or steps_per_generation other than "
            "gradient_accumulation_steps, cannot be resumed exactly: set save_strategy to 'no'"
        )
    defaults = {setting.name: setting.default for setting in fields(settings)}
    for name in (*PREPARE_SETTINGS, *SAMPLING_SETTINGS):
        if getattr(settings, name) != defaults[name]:
            remedy = (
                "whose advantages are computed once: pass it to `ascl-train prepare`"
                if name in PREPARE_SETTINGS
                else "which were sampled and scored before: remove it"
            )
            raise ConfigError(f"{name} has no effect on logged episodes, {remedy}")
