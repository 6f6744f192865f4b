"""Settings of a training run: one YAML file, read by TRL's parser; unknown keys fail.

Everything that `trl.GRPOConfig` knows can stand in it (loss type, clipping, KL, batch sizes, precision).
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, NoReturn

from trl import GRPOConfig, TrlParser

from trainer.errors import ConfigError


@dataclass
class IFPOConfig(GRPOConfig):  # type: ignore[misc]
    """`GRPOConfig` with the method's own settings, and defaults that run on any machine."""

    alpha: float = field(default=1.0, metadata={"help": "0 is GRPO, 1 gives every mode the same weight."})
    w_max: float = field(default=4.0, metadata={"help": "Bound on a weight before scaling."})
    baseline: str = field(default="balanced", metadata={"help": "`balanced` or `group`."})
    frequency: str = field(
        default="group", metadata={"help": "Over what a mode's frequency is counted: `group` or `batch`."}
    )
    cost: float = field(
        default=0.0,
        metadata={"help": "A price on consulting, in units of reward: with alpha 0, GRPO's rival."},
    )
    bf16: bool | None = field(
        default=None, metadata={"help": "Left out: where the accelerator can and nowhere else."}
    )
    activation_checkpointing: bool | None = field(
        default=False, metadata={"help": "Less memory for more time."}
    )
    dataloader_pin_memory: bool = field(default=False, metadata={"help": "Faster copies to a GPU."})
    report_to: str = field(default="none", metadata={"help": "trackio, wandb, tensorboard or none."})
    logging_steps: float = field(default=1, metadata={"help": "Steps between two lines of progress."})
    save_strategy: str = field(default="no", metadata={"help": "When to keep checkpoints."})
    disable_tqdm: bool = field(default=True, metadata={"help": "Progress is told in lines of our own."})

    def __post_init__(self) -> None:
        for name, known in (("frequency", ("group", "batch")), ("baseline", ("balanced", "group"))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is '{getattr(self, name)}', but it is {' or '.join(known)}")
        for name in ("alpha", "cost"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)}, but it is a number of at least 0")
        if not self.w_max > 0:
            raise ValueError(f"w_max is {self.w_max}, but it must be above 0")
        if self.bf16 is None:
            import torch

            self.bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        super().__post_init__()


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


class _Parser(TrlParser):  # type: ignore[misc]
    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)


def parse_logged(config: Path | None, options: Sequence[str]) -> tuple[LoggedArguments, LoggedConfig]:
    """Settings from a YAML file, overridden by `--key value` options.

    Raises:
        ConfigError: an unreadable file, an unknown key (the nearest known one is named), a wrong value.
    """
    arguments, settings = parse_run(config, options, LoggedArguments, LoggedConfig)
    _check(arguments, settings)
    return arguments, settings


def parse_run(config: Path | None, options: Sequence[str], *kinds: type) -> tuple[Any, Any]:
    """One value of each kind, from a YAML file that is overridden by `--key value` options.

    Raises:
        ConfigError: an unreadable file, an unknown key (the nearest known one is named), a wrong value.
    """
    import yaml

    parser = _Parser(kinds)
    known = {action.dest for action in parser._actions}
    try:
        given = ["--config", str(config)] if config else []
        arguments, settings = parser.parse_args_and_config([*given, *options])
    except OSError as error:
        raise ConfigError(f"{config} cannot be read: {error.strerror}") from None
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise ConfigError(f"{config} is not YAML: {problem}") from None
    except ConfigError:
        raise
    except (ValueError, TypeError) as error:
        raise ConfigError(_said(str(error), config, known)) from None
    for action in parser._actions:  # which holds options against their choices, but nothing in a YAML file
        chosen = getattr(arguments, action.dest, None)
        if action.choices and chosen is not None and chosen not in action.choices:
            raise ConfigError(
                f"{action.dest} is {chosen!r}, but it is one of {', '.join(map(str, action.choices))}"
            )
    return arguments, settings


def _said(message: str, config: Path | None, known: set[str]) -> str:
    if "not used by" not in message and "Unknown arguments" not in message:
        return " ".join(message.split())
    unknown = [word for word in message.replace("'", " ").split() if word.startswith("--")]
    if not unknown:
        stray = message.partition("[")[2].partition("]")[0] or message
        return f"{stray} belongs to no setting: settings are given as --name value"
    names = [word.strip("-[],").replace("-", "_") for word in unknown]
    near = difflib.get_close_matches(names[0], sorted(known), n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    where = f" in {config} or among the options" if config else ""
    return f"there is no setting called '{names[0]}'{where}{hint}"


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
