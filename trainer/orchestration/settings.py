"""Settings of `ascl-train loop`: one YAML file; unknown keys fail."""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trainer.errors import ConfigError
from trainer.orchestration.model_server import TRANSFORMERS


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Sampling(_Part):
    """How each round samples."""

    prompts: str = "builtin:train"
    """JSON Lines of prompts, or a built-in set."""
    samples: int = Field(default=8, ge=2)
    """Episodes of each prompt: a group."""
    temperature: float = Field(default=1.0, gt=0)
    max_tokens: int = Field(default=1024, ge=1)
    max_turns: int = Field(default=4, ge=1)
    concurrency: int = Field(default=16, ge=1, le=1024)
    mode_share: dict[Literal["consult", "direct"], Annotated[float, Field(ge=0, le=1)]] = {}
    """Share of each group that is brought into a mode, such as `{consult: 0.25, direct: 0.25}`."""
    direct_draws: int | None = Field(default=None, ge=1, le=256)
    """Replies drawn at the most for a sample that is to answer directly; None as `ascl-agent run` does."""
    seed: int | None = 0
    """Of the first round's first sample; None sends none."""
    provider: str = "auto"

    @model_validator(mode="after")
    def _leaves_some_or_none_free(self) -> Sampling:
        if (total := sum(self.mode_share.values())) > 1:
            raise ValueError(f"the shares of mode_share add up to {total:g}: together they are at most 1")
        return self


class Scoring(_Part):
    """How episodes are rewarded; a judge is asked where one is named."""

    format_penalty: float = Field(default=0.2, ge=0, allow_inf_nan=False)
    judge: dict[str, str | int | float] = {}
    """Options of `ascl-eval judge run`, such as `{judge: wildguard, base-url: URL, model: NAME}`."""

    @model_validator(mode="after")
    def _judge_can_be_asked(self) -> Scoring:
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


class Advantages(_Part):
    """Options of `ascl-train prepare`."""

    alpha: float = Field(default=1.0, ge=0)
    w_max: float = Field(default=4.0, gt=0)
    baseline: Literal["balanced", "group"] = "balanced"
    scale_rewards: Literal["group", "batch", "none"] = "group"


class Floor(_Part):
    """What must hold on prompts that are not trained on; below it the loop stops at the last good model."""

    prompts: str = "builtin:held_out"
    samples: int = Field(default=1, ge=1)
    harmful_consult: float = Field(default=0.0, ge=0, le=1)
    """Least share of harmful prompts that are consulted on."""
    harmful_safe: float = Field(default=0.0, ge=0, le=1)
    """Least mean outcome on harmful prompts (refused, or judged harmless)."""


class LoopSettings(_Part):
    """Everything that a loop depends on."""

    model: str
    """Folder or name of the model to start from."""
    rounds: int = Field(default=3, ge=1)
    serve: str = TRANSFORMERS
    """Command that serves `{model}` on `{port}` of this machine."""
    rules: str | None = None
    """MCP address of a rule service, or a folder of rules to serve; None serves the packaged rulebook."""
    rules_top_k: int | None = Field(default=None, ge=1, le=10)
    """Rules that a consultation returns where the loop serves them; None for the service's default. A small
    model reads one better than three, and faster."""
    sampling: Sampling = Sampling()
    scoring: Scoring = Scoring()
    advantages: Advantages = Advantages()
    floor: Floor | None = Floor()
    """None measures nothing between rounds."""
    train: dict[str, Any] = {}
    """Settings of `ascl-train logged`, ours and `trl.GRPOConfig`'s."""
    launcher: str | None = None
    """Command that starts the training module on several processes, such as `accelerate launch
    --multi_gpu -m`; None trains in one process."""
    keep_models: int = Field(default=2, ge=2)
    """Merged models of so many last rounds stay on disk; adapters all stay. What a round made is measured in
    the next, and until then the one before it may be the last good one."""

    @model_validator(mode="after")
    def _serves_a_model_on_a_port(self) -> LoopSettings:
        if "{model}" not in self.serve or "{port}" not in self.serve:
            raise ValueError("serve must name {model} and {port}, so that each round's model can be served")
        if self.rules_top_k is not None and "://" in (self.rules or ""):
            raise ValueError("rules_top_k is for rules that the loop serves: set it where yours are served")
        return self


def read_loop_settings(config: Path, **given: Any) -> LoopSettings:
    """Settings from a YAML file; what is `given` and not None stands over it.

    Raises:
        ConfigError: no such file, no YAML, an unknown key or a wrong value.
    """
    known = read_yaml(config)
    try:
        return LoopSettings.model_validate(
            {**known, **{name: value for name, value in given.items() if value is not None}}
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        what = "there is no such setting" if first["type"] == "extra_forbidden" else message
        raise ConfigError(f"{config}: {where or 'settings'}: {what}") from None


def check_training(train: dict[str, Any]) -> None:
    """Whether `ascl-train logged` will take these settings, found out before a round is paid for.

    Raises:
        ConfigError: an unknown key (the nearest known one is named), or a wrong value.
    """
    import yaml

    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "train.yaml"
        # The settings are looked at, not this machine: a launcher may train on another.
        settings = {name: value for name, value in train.items() if name not in ("fp16", "tf32")}
        settings |= {"bf16": False, "use_cpu": True}
        config.write_text(yaml.safe_dump(settings), encoding="utf-8")
        options = ["--model=m", "--groups=g", f"--output_dir={folder}", "--resume=true"]
        # In a process of its own: a loop that kept torch would lack its memory for as long as it runs.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
            try:
                apart.submit(_parse, config, options).result()
            except ConfigError as error:
                said = str(error).replace(str(config), "the loop's YAML")
                raise ConfigError(f"train: {said}") from None


def _parse(config: Path, options: list[str]) -> None:
    from trainer.stages.logged.config import parse_logged

    parse_logged(config, options)


def read_yaml(config: Path) -> dict[str, Any]:
    """The settings of a YAML file as they stand there.

    Raises:
        ConfigError: no such file, no YAML, or something else than settings.
    """
    import yaml

    try:
        known = yaml.safe_load(config.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise ConfigError(f"{config} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{config} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(known, dict):
        raise ConfigError(f"{config} holds no settings: write `model: FOLDER` and what else differs")
    return known
