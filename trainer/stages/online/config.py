"""Settings of the stage `online`: its own arguments, and all of `trl.GRPOConfig`, including vLLM's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from evaluation.scorers.judges.registry import make_judge
from trainer.errors import ConfigError
from trainer.stages.config import IFPOConfig, parse_run
from trainer.stages.model_io import resolve_lora_layers

_TRUNCATED_SAMPLING = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
"""Settings that change the sampled distribution, with the values that do not."""
_HARMLESS_FIELDS = ("stop_token_ids", "include_stop_str_in_output", "skip_special_tokens")
"""Fields of a request to vLLM that leave the sampled distribution as it is."""


@dataclass
class OnlineConfig(IFPOConfig):
    """`IFPOConfig` with a limit on the consultations of an episode, and stratified groups."""

    max_tool_calling_iterations: int | None = field(
        default=3, metadata={"help": "Maximum rounds of consultations in one episode."}
    )
    forced_consult: int = field(
        default=0, metadata={"help": "Number of episodes of each group that are forced to consult."}
    )
    forced_direct: int = field(
        default=0, metadata={"help": "Number of episodes of each group that are forced to answer directly."}
    )

    max_draws: int = field(
        default=1,
        metadata={
            "help": "Maximum draws of prompts for an update, until its groups hold both modes and unequal "
            "rewards."
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_draws()
        if self.use_vllm and self.vllm_mode == "server" and "seed" in (self.generation_kwargs or {}):
            raise ValueError(
                "generation_kwargs sets a seed, with which vLLM writes the same reply in all episodes of a "
                "group: remove it"
            )
        forced = {name: getattr(self, name) for name in ("forced_consult", "forced_direct")}
        for name, count in forced.items():
            if count < 0:
                raise ValueError(f"{name} is {count}, but it must be at least 0")
        if not any(forced.values()):
            return
        total = sum(forced.values())
        if total >= self.num_generations:
            raise ValueError(
                f"forced_consult and forced_direct add up to {total}, but a group has {self.num_generations} "
                "episodes, and at least one must be free: lower them, or raise num_generations"
            )
        self._check_sampler()
        for name in _TRUNCATED_SAMPLING:
            if getattr(self, name) not in (None, _TRUNCATED_SAMPLING[name]):
                raise ValueError(
                    f"{name} changes the probability of consulting, which weighs forced episodes: remove "
                    f"{name}, or forced_consult and forced_direct"
                )

    def _check_draws(self) -> None:
        """Checks that groups can be replaced one by one.

        Raises:
            ValueError: they cannot; the message says what to change.
        """
        if self.max_draws < 1:
            raise ValueError(f"max_draws is {self.max_draws}, but it must be at least 1")
        if self.max_draws == 1:
            return
        rows = self.per_device_train_batch_size * self.steps_per_generation
        if rows % self.num_generations:
            raise ValueError(
                f"max_draws replaces whole groups, but a process samples {rows} episodes at a time, not "
                f"a multiple of {self.num_generations}: set per_device_train_batch_size to one"
            )
        if self.scale_rewards == "batch" or self.frequency == "batch":
            raise ValueError(
                "max_draws replaces single groups, but scale_rewards: batch and frequency: batch compute "
                "advantages from all groups of a draw: set them to group, or remove max_draws"
            )

    def _check_sampler(self) -> None:
        """Checks that the sampler can force modes.

        Raises:
            ValueError: they cannot; the message says what to change.
        """
        if self.use_transformers_continuous_batching or (self.use_vllm and self.vllm_mode != "server"):
            raise ValueError(
                "forced_consult and forced_direct work with a vLLM server and without vLLM, but not with "
                "colocated vLLM or use_transformers_continuous_batching, which sample all episodes of a "
                "batch in the same way: set vllm_mode: server, or remove these settings"
            )
        fields = [name for name in self.generation_kwargs or {} if name not in _HARMLESS_FIELDS]
        fields = [f"generation_kwargs sets {name}, which" for name in fields]
        if self.vllm_structured_outputs_regex is not None:
            fields.append("vllm_structured_outputs_regex")
        if self.use_vllm and fields:
            raise ValueError(
                f"{fields[0]} may change the probability of consulting, by which forced episodes are "
                "weighed: remove it, or forced_consult and forced_direct"
            )


@dataclass
class OnlineArguments:
    """Arguments of `ascl-train online` besides TRL's settings."""

    model: str = field(metadata={"help": "Folder or hub name of the model to train."})
    prompts: str = field(
        default="builtin:train", metadata={"help": "JSON Lines of prompts, or a built-in set."}
    )
    rules_url: str = field(
        default="http://127.0.0.1:8808/mcp", metadata={"help": "MCP address of the rule service."}
    )
    rules: str | None = field(default="", metadata={"help": "Old name of rules_url."})
    rules_concurrency: int = field(
        default=64, metadata={"help": "Maximum number of consultations in flight."}
    )
    method: Literal["ifpo", "grpo", "grpo+cost"] = field(
        default="ifpo",
        metadata={"help": "`grpo` sets `alpha: 0`; `grpo+cost` also subtracts `cost` per consultation."},
    )
    outcome_weight: float = field(default=1.0, metadata={"help": "Weight of the outcome in the reward."})
    format_penalty: float = field(
        default=0.2,
        metadata={"help": "Penalty for a malformed call, an unfinished answer or misplaced reasoning."},
    )
    judge: str | None = field(
        default=None, metadata={"help": "Judge of harm, such as wildguard; default: none, refusals count."}
    )
    judge_url: str | None = field(default=None, metadata={"help": "OpenAI-compatible API of the judge."})
    judge_model: str | None = field(default=None, metadata={"help": "Model name of the judge."})
    floor_prompts: str | None = field(
        default=None, metadata={"help": "Held-out prompts of the safety floor, sampled every `eval_steps`."}
    )
    floor_consult: float | None = field(
        default=None, metadata={"help": "Minimum consult rate on harmful ones; below it, training stops."}
    )
    lora_rank: int = field(
        default=16, metadata={"help": "Rank of the adapter; 0 trains all weights, without an adapter."}
    )
    lora_layers: int | None = field(
        default=None,
        metadata={"help": "Number of layers with an adapter, counted from the top (default: all)."},
    )
    resume: bool = field(default=False, metadata={"help": "Resume from the last checkpoint in the folder."})

    def __post_init__(self) -> None:
        self.lora_layers = resolve_lora_layers(self.lora_rank, self.lora_layers, default=999)


def parse_online(config: Path | None, options: Sequence[str]) -> tuple[OnlineArguments, OnlineConfig]:
    """Parses settings from a YAML file; `--key value` options override it.

    Raises:
        ConfigError: the file cannot be read, a key is unknown, or a value is invalid.
    """
    arguments, settings = parse_run(config, options, OnlineArguments, OnlineConfig)
    if arguments.rules != "":
        arguments.rules_url, arguments.rules = arguments.rules or "", ""
    if not arguments.rules_url:
        raise ConfigError(
            "no rule service is given: set rules_url to its address, which `ascl-rules serve` prints"
        )
    if arguments.rules_concurrency < 1:
        raise ConfigError(f"rules_concurrency is {arguments.rules_concurrency}, but it must be at least 1")
    for name in ("outcome_weight", "format_penalty"):
        if not 0 <= getattr(arguments, name) < float("inf"):
            raise ConfigError(f"{name} is {getattr(arguments, name)}, but it must be a number of at least 0")
    if arguments.judge and not (arguments.judge_url and arguments.judge_model):
        raise ConfigError("a judge needs an address: set judge_url and judge_model")
    if arguments.judge:
        try:
            make_judge(arguments.judge)
        except ValueError as error:
            raise ConfigError(f"judge: {error}") from None
    if arguments.floor_consult is not None and not 0 <= arguments.floor_consult <= 1:
        raise ConfigError(f"floor_consult is {arguments.floor_consult:g}, but it must be a share from 0 to 1")
    if arguments.floor_consult is not None and arguments.floor_prompts is None:
        raise ConfigError("floor_consult needs held-out prompts: set floor_prompts: builtin:held_out")
    if arguments.floor_prompts is not None and settings.eval_strategy == "no":
        raise ConfigError(
            "floor_prompts are sampled when eval_strategy says, and it is 'no': set eval_strategy: steps"
        )
    if (arguments.method == "grpo+cost") != (settings.cost > 0):
        raise ConfigError(
            "only the method grpo+cost takes a cost, and it needs one: set method: grpo+cost and cost, or "
            "neither"
        )
    if arguments.method != "ifpo":
        if settings.alpha_end is not None:
            raise ConfigError(
                f"the method {arguments.method} sets alpha to 0, so alpha_end has no effect: remove it, or "
                "set method: ifpo"
            )
        settings.alpha = 0.0
    return arguments, settings
