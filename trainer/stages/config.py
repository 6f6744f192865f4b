"""Settings of a training run: one YAML file, read by TRL's parser; unknown keys are errors.

The file accepts every setting of `trl.GRPOConfig` (loss type, clipping, KL, batch sizes, precision).
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from trl import GRPOConfig, TrlParser

from trainer.errors import ConfigError

_CHOICES = {
    "frequency": ("group", "batch"),
    "baseline": ("balanced", "group"),
    "consult_cost_where": ("always", "direct_as_good"),
    "harmful_floor_rate": ("consult", "safe"),
}


@dataclass
class IFPOConfig(GRPOConfig):  # type: ignore[misc]
    """`GRPOConfig` with the settings of IFPO, and defaults that run on any machine."""

    alpha: float = field(
        default=1.0,
        metadata={"help": "Strength of the weighting: 0 is GRPO, 1 gives every mode the same weight."},
    )
    alpha_end: float | None = field(
        default=None,
        metadata={"help": "Value of alpha at the last update, reached linearly; default: alpha is constant."},
    )
    w_max: float = field(default=4.0, metadata={"help": "Upper bound on a weight before scaling."})
    baseline: str = field(
        default="balanced", metadata={"help": "`balanced` (weighted mean) or `group` (plain mean)."}
    )
    frequency: str = field(
        default="group",
        metadata={"help": "Scope in which a mode's frequency is counted: `group` or `batch`."},
    )
    cost: float = field(
        default=0.0,
        metadata={"help": "Reward subtracted per consultation; with alpha 0, the baseline `grpo+cost`."},
    )
    consult_cost_where: str = field(
        default="always",
        metadata={
            "help": "Groups in which a consultation costs `cost`: `always` all, `direct_as_good` those whose "
            "direct episodes earned as much."
        },
    )
    harmful_floor: float | None = field(
        default=None,
        metadata={"help": "Rate on harmful prompts below which their advantages gain weight."},
    )
    harmful_floor_rate: str = field(
        default="consult",
        metadata={"help": "This rate: `consult`, or `safe`, the share that the model handles safely."},
    )
    multiplier_rate: float = field(
        default=0.5,
        metadata={"help": "Change of this weight per measurement and unit of the rate's difference."},
    )
    multiplier_max: float = field(default=10.0, metadata={"help": "Upper bound on this weight."})
    bf16: bool | None = field(default=None, metadata={"help": "Default: on if the accelerator supports it."})
    activation_checkpointing: bool | None = field(
        default=False, metadata={"help": "Uses less memory and more time."}
    )
    dataloader_pin_memory: bool = field(default=False, metadata={"help": "Speeds up copies to a GPU."})
    report_to: str = field(default="none", metadata={"help": "trackio, wandb, tensorboard or none."})
    logging_steps: float = field(default=1, metadata={"help": "Steps between two progress reports."})
    save_strategy: str = field(default="no", metadata={"help": "When to save checkpoints."})
    disable_tqdm: bool = field(
        default=True, metadata={"help": "On by default: ASCL reports progress itself."}
    )

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is '{getattr(self, name)}', but it must be {' or '.join(choices)}")
        for name in ("alpha", "alpha_end", "cost"):
            if getattr(self, name) is not None and not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)}, but it must be a number of at least 0")
        if self.consult_cost_where != "always" and not self.cost:
            raise ValueError(
                f"consult_cost_where is {self.consult_cost_where}, but there is no cost: set "
                "method: grpo+cost and cost, such as 0.1"
            )
        if not self.w_max > 0:
            raise ValueError(f"w_max is {self.w_max}, but it must be above 0")
        if self.harmful_floor is not None and not 0 <= self.harmful_floor <= 1:
            raise ValueError(f"harmful_floor is {self.harmful_floor}, but it must be a share from 0 to 1")
        if not 0 < self.multiplier_rate < float("inf"):
            raise ValueError(f"multiplier_rate is {self.multiplier_rate}, but it must be a number above 0")
        if not 1 <= self.multiplier_max < float("inf"):
            raise ValueError(
                f"multiplier_max is {self.multiplier_max}, but it must be a number of at least 1"
            )
        if self.bf16 is None:
            import torch

            self.bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        super().__post_init__()


class _Parser(TrlParser):  # type: ignore[misc]
    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)


def parse_run(config: Path | None, options: Sequence[str], *kinds: type) -> tuple[Any, Any]:
    """Parses arguments and settings from a YAML file; `--key value` options override it.

    Args:
        kinds: two dataclasses, of the stage's arguments and of its settings.

    Raises:
        ConfigError: the file cannot be read, a key is unknown (the message suggests the nearest one), or a
        value is invalid.
    """
    import yaml

    parser = _Parser(kinds, allow_abbrev=False)
    setting_names = {action.dest for action in parser._actions}
    try:
        config_option = ["--config", str(config)] if config else []
        arguments, settings = parser.parse_args_and_config([*config_option, *options])
    except OSError as error:
        raise ConfigError(f"{config} cannot be read: {error.strerror}") from None
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise ConfigError(f"{config} is not valid YAML: {problem}") from None
    except ConfigError:
        raise
    except (ValueError, TypeError) as error:
        raise ConfigError(_explain_parser_error(str(error), config, setting_names)) from None
    for action in parser._actions:  # the parser checks the choices of options, but not those of a YAML file
        value = getattr(arguments, action.dest, None)
        if action.choices and value is not None and value not in action.choices:
            raise ConfigError(
                f"{action.dest} is {value!r}, but it must be one of {', '.join(map(str, action.choices))}"
            )
    return arguments, settings


def _explain_parser_error(message: str, config: Path | None, setting_names: set[str]) -> str:
    if "not used by" not in message and "Unknown arguments" not in message:
        return " ".join(message.split())
    unknown = [word for word in message.replace("'", " ").split() if word.startswith("--")]
    if not unknown:
        stray = message.partition("[")[2].partition("]")[0] or message
        return f"{stray} does not belong to a setting: pass settings as --name value"
    names = [word.strip("-[],").replace("-", "_") for word in unknown]
    near = difflib.get_close_matches(names[0], sorted(setting_names), n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    where = f" in {config} or among the options" if config else ""
    return f"unknown setting '{names[0]}'{where}{hint}"
