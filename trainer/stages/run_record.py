"""Fields of `run.json` that all stages share: command, settings, package versions, machine, time."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

RECORDED_PACKAGES = (
    "ascl",
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "datasets",
    "pyarrow",
    "numpy",
)

_NAME = r"[\w.-]*(?:token|(?:key|secret|password)s?)(?![a-z])[\w.-]*"  # `hub_token`, but not `max_tokens`
_OPTION = re.compile(rf"(--)?({_NAME})(=.*)?", re.IGNORECASE | re.DOTALL)
_QUERY = re.compile(rf"(?<=[?&])({_NAME}=)[^&#\s]*", re.IGNORECASE)
_USER = re.compile(r"(?<=://)[^/?#\s]*@")


def common_record() -> dict[str, Any]:
    """Returns the command line, package versions, machine and time; user and host names are not recorded.

    Secrets among the command's options are masked.
    """
    return {
        "command": mask_secrets_in_text(shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])),
        "versions": package_versions(),
        "machine": {
            "python": platform.python_version(),
            "system": platform.system(),
            "processor": platform.machine(),
        },
        "written_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def changed_settings(config: Any, always: Sequence[str]) -> dict[str, Any]:
    """Returns the settings that differ from their defaults, and those in `always`.

    It creates a second config, which resets accelerate's state: do not use `trainer.accelerator.device`
    afterwards.

    Args:
        config: an instance of `IFPOConfig` or of a subclass.
    """
    defaults = asdict(type(config)(output_dir=config.output_dir))
    return {
        name: value
        for name, value in config.to_dict().items()
        if name in always or (name in defaults and value != defaults[name] and name != "logging_dir")
    }


def mask_secrets_in_text(text: str) -> str:
    """Masks credentials in URLs and the values of secret options in a command line or a URL."""
    try:
        words = shlex.split(text)
    except ValueError:  # an unclosed quotation mark
        words = text.split()
    masked, secret = list[str](), ""
    for word in words:
        option = _OPTION.fullmatch(word)
        if option and (option[1] or option[3]):
            masked.append(f"{option[1] or ''}{option[2]}{'=' + _mask(option[2]) if option[3] else ''}")
            secret = "" if option[3] else option[2]  # without "=", the next word is the value
            continue
        is_value = secret and not word.startswith("--")
        masked.append(_mask(secret) if is_value else _QUERY.sub(r"\1...", _USER.sub("", word)))
        secret = ""
    if masked == words:
        return text
    return masked[0] if len(masked) == 1 else shlex.join(masked)


def mask_secrets(value: Any) -> Any:
    """Masks secrets in settings: in every string, and every value under a secret's name."""
    if isinstance(value, dict):
        return {
            name: _mask(str(name))
            if item and re.fullmatch(_NAME, str(name), re.IGNORECASE)
            else mask_secrets(item)
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [mask_secrets(item) for item in value]
    return mask_secrets_in_text(value) if isinstance(value, str) else value


def _mask(name: str) -> str:
    """Returns the placeholder that `transformers` uses, such as `<HUB_TOKEN>`."""
    return f"<{name.replace('-', '_').upper()}>"


def package_versions() -> dict[str, str]:
    """Returns the versions of the installed packages that a result depends on."""
    versions = {}
    for name in RECORDED_PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
