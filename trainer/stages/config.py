"""Settings of a training run: one YAML file, read by TRL's parser; unknown keys fail.

Everything that `trl.GRPOConfig` knows can stand in it (loss type, clipping, KL, batch sizes, precision).
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

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


class _Parser(TrlParser):  # type: ignore[misc]
    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)


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
