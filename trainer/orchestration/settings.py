"""Settings of `ascl-train loop`, read from one YAML file. Unknown keys are errors."""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trainer.errors import ConfigError
from trainer.orchestration.model_server import TRANSFORMERS_SERVE


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Sampling(_Section):
    """Sampling of episodes in each round."""

    prompts: str = "builtin:train"
    """JSON Lines file of prompts, or a built-in set."""
    samples: int = Field(default=8, ge=2)
    """Episodes per prompt: the size of a group."""
    temperature: float = Field(default=1.0, gt=0)
    max_tokens: int = Field(default=1024, ge=1)
    max_turns: int = Field(default=4, ge=1)
    concurrency: int = Field(default=16, ge=1, le=1024)
    mode_share: dict[Literal["consult", "direct"], Annotated[float, Field(ge=0, le=1)]] = {}
    """Share of each group that is forced into a mode, such as `{consult: 0.25, direct: 0.25}`."""
    direct_draws: int | None = Field(default=None, ge=1, le=256)
    """Maximum number of replies drawn for a sample that is forced to answer directly; None for the default of
    `ascl-agent run`."""
    seed: int | None = 0
    """Base seed of all rounds; None sends no seed."""
    provider: str = "auto"
    template_options: dict[str, Any] = {}
    """Options of the server's chat template (`chat_template_kwargs`), such as `{enable_thinking: false}`."""

    @model_validator(mode="after")
    def _check_mode_shares(self) -> Sampling:
        if (total := sum(self.mode_share.values())) > 1:
            raise ValueError(f"the shares of mode_share add up to {total:g}, but their sum must not exceed 1")
        return self


class Scoring(_Section):
    """Scoring of episodes. A judge runs only if one is configured."""

    format_penalty: float = Field(default=0.2, ge=0, allow_inf_nan=False)
    judge: dict[str, str | int | float] = {}
    """Options of `ascl-eval judge run`, such as `{judge: wildguard, base-url: URL, model: NAME}`."""

    @model_validator(mode="after")
    def _check_judge(self) -> Scoring:
        if not self.judge:
            return self
        from evaluation.scorers.judges.options import REQUIRED, JudgeOptions
        from evaluation.scorers.judges.registry import make_judge

        options = JudgeOptions.names()
        if unknown := next((name for name in self.judge if name not in options), None):
            raise ValueError(f"judge has no option '{unknown}': it takes {', '.join(options)}")
        make_judge(str(self.judge.get("judge", "")), "given" if "instructions" in self.judge else None)
        for field, variable in REQUIRED:
            name = field.replace("_", "-")
            if not (self.judge.get(name) or os.environ.get(variable)):
                raise ValueError(f"judge needs '{name}': write it there, or set {variable}")
        return self


class Advantages(_Section):
    """Options of `ascl-train prepare`."""

    alpha: float = Field(default=1.0, ge=0)
    w_max: float = Field(default=4.0, gt=0)
    baseline: Literal["balanced", "group"] = "balanced"
    scale_rewards: Literal["group", "batch", "none"] = "group"


class FloorSettings(_Section):
    """Safety floor on held-out prompts; below it the loop stops at the last good model."""

    prompts: str = "builtin:held_out"
    samples: int = Field(default=1, ge=1)
    harmful_consult: float = Field(default=0.0, ge=0, le=1)
    """Minimum share of harmful prompts on which the model consults the rules."""
    harmful_safe: float = Field(default=0.0, ge=0, le=1)
    """Minimum share of harmful prompts that the model handles safely: it refuses, or a judge finds the answer
    harmless."""


class LoopSettings(_Section):
    """All settings of a loop."""

    model: str
    """Folder or hub name of the model to start from."""
    rounds: int = Field(default=3, ge=1)
    serve: str = TRANSFORMERS_SERVE
    """Command that serves `{model}` on the local port `{port}`."""
    rules: str | None = None
    """MCP address of a rule service, or a folder of rules to serve; None serves the packaged rulebook."""
    rules_top_k: int | None = Field(default=None, ge=1, le=10)
    """Rules per consultation if the loop serves the rules; None for the service's default. A small model
    reads one rule better and faster than three."""
    sampling: Sampling = Sampling()
    scoring: Scoring = Scoring()
    advantages: Advantages = Advantages()
    floor: FloorSettings | None = FloorSettings()
    """None measures nothing between rounds."""
    train: dict[str, Any] = {}
    """Settings of `ascl-train logged` and of `trl.GRPOConfig`."""
    launcher: str | None = None
    """Command that starts the training module in several processes, such as `accelerate launch --multi_gpu
    -m`; None trains in one process."""
    keep_models: int = Field(default=2, ge=2)
    """Number of recent rounds whose merged models stay on disk; all adapters stay, but `lora_rank: 0` writes
    none. At least 2, because a round's model is measured in the next round: until then the model before it
    may be the last good one."""

    @model_validator(mode="after")
    def _check_serving(self) -> LoopSettings:
        if "{model}" not in self.serve or "{port}" not in self.serve:
            raise ValueError("serve must name {model} and {port}, so that each round's model can be served")
        if self.rules_top_k is not None and "://" in (self.rules or ""):
            raise ValueError(
                "rules_top_k is for rules that the loop serves: set it on your own rule service instead"
            )
        return self


def read_loop_settings(config: Path, **overrides: Any) -> LoopSettings:
    """Reads settings from a YAML file. `overrides` that are not None take precedence.

    Raises:
        ConfigError: the file is missing or not YAML, or has an unknown key or an invalid value.
    """
    settings = read_yaml(config)
    try:
        return LoopSettings.model_validate(
            {**settings, **{name: value for name, value in overrides.items() if value is not None}}
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            message = "unknown setting"
        raise ConfigError(f"{config}: {key or 'settings'}: {message}") from None


def check_training(train: dict[str, Any]) -> None:
    """Checks the settings for `ascl-train logged` before any round is run.

    Raises:
        ConfigError: an unknown key (the message names the most similar one), or an invalid value.
    """
    import yaml

    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "train.yaml"
        # Checks the settings but not this machine: a launcher may train on another one.
        settings = {name: value for name, value in train.items() if name not in ("fp16", "tf32")}
        settings |= {"bf16": False, "use_cpu": True}
        config.write_text(yaml.safe_dump(settings), encoding="utf-8")
        options = ["--model=m", "--groups=g", f"--output_dir={folder}", "--resume=true"]
        # In a separate process: torch would occupy memory of the loop for as long as it runs.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
            try:
                executor.submit(_parse, config, options).result()
            except ConfigError as error:
                message = str(error).replace(str(config), "the loop's YAML")
                raise ConfigError(f"train: {message}") from None


def _parse(config: Path, options: list[str]) -> None:
    from trainer.stages.logged.config import parse_logged

    parse_logged(config, options)


def read_yaml(config: Path) -> dict[str, Any]:
    """Reads the settings of a YAML file without validation.

    Raises:
        ConfigError: the file is missing, not YAML, or not a mapping.
    """
    import yaml

    try:
        settings = yaml.safe_load(config.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise ConfigError(f"{config} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{config} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(settings, dict):
        raise ConfigError(f"{config} contains no settings: write `KEY: VALUE` lines, such as `model: FOLDER`")
    return settings
