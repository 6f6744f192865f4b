"""What every stage's record says, so that a run can be repeated: command, versions, machine, time."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import shlex
import sys
import time
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
    """The command as typed, where and with what it ran, and when. No paths or names of the user beyond it.

    Secrets among the options are masked.
    """
    return {
        "command": mask_secrets_in_text(shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])),
        "versions": versions(),
        "machine": {
            "python": platform.python_version(),
            "system": platform.system(),
            "processor": platform.machine(),
        },
        "written_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def mask_secrets_in_text(text: str) -> str:
    """A command or an address without credentials in addresses and without the values of secret options."""
    try:
        words = shlex.split(text)
    except ValueError:  # a quotation that does not end
        words = text.split()
    safe, secret = list[str](), ""
    for word in words:
        option = _OPTION.fullmatch(word)
        if option and (option[1] or option[3]):
            safe.append(f"{option[1] or ''}{option[2]}{'=' + _mask(option[2]) if option[3] else ''}")
            secret = "" if option[3] else option[2]  # then the value is the next word
            continue
        is_value = secret and not word.startswith("--")
        safe.append(_mask(secret) if is_value else _QUERY.sub(r"\1...", _USER.sub("", word)))
        secret = ""
    if safe == words:
        return text
    return safe[0] if len(safe) == 1 else shlex.join(safe)


def mask_secrets(value: Any) -> Any:
    """The same for every text in settings, and for whatever stands under a secret's name."""
    if isinstance(value, dict):
        return {
            name: _mask(str(name))
            if given and re.fullmatch(_NAME, str(name), re.IGNORECASE)
            else mask_secrets(given)
            for name, given in value.items()
        }
    if isinstance(value, list):
        return [mask_secrets(part) for part in value]
    return mask_secrets_in_text(value) if isinstance(value, str) else value


def _mask(name: str) -> str:
    """As `transformers` writes it: `<HUB_TOKEN>`."""
    return f"<{name.replace('-', '_').upper()}>"


def versions() -> dict[str, str]:
    """Of the libraries that a result depends on; one that is not installed is left out."""
    found = {}
    for name in RECORDED_PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
