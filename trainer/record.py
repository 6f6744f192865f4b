"""What every stage's record says, so that a run can be repeated: command, versions, machine, time."""

from __future__ import annotations

import importlib.metadata
import platform
import shlex
import sys
import time
from pathlib import Path
from typing import Any

VERSIONS_OF = ("ascl", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "pyarrow", "numpy")


def common_record() -> dict[str, Any]:
    """The command as typed, where and with what it ran, and when. No paths or names of the user beyond it."""
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "versions": versions(),
        "machine": {
            "python": platform.python_version(),
            "system": platform.system(),
            "processor": platform.machine(),
        },
        "written_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def versions() -> dict[str, str]:
    """Of the libraries that a result depends on; one that is not installed is left out."""
    found = {}
    for name in VERSIONS_OF:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
