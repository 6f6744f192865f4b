"""Installs outside packages into `build/clients/` and reuses them until their requirements change.

node("typescript-1", "@modelcontextprotocol/sdk@1.32.2") / "node_modules"
venv("python-1", "mcp==1.30.0")            # its Python
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

CACHE = Path(__file__).resolve().parents[2] / "build" / "clients"


def run(*command: str | Path, cwd: Path, timeout: float = 600) -> str:
    """Returns the standard output of a command. Raises AssertionError with its output if it fails."""
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def node(name: str, *packages: str) -> Path:
    """Returns a folder in which scripts can import these npm packages and run their commands."""

    def install(folder: Path) -> None:
        (folder / "package.json").write_text(json.dumps({"private": True}), encoding="utf-8")
        run("npm", "install", "--no-audit", "--no-fund", *packages, cwd=folder)

    return _cached(name, packages, install)


def venv(name: str, *requirements: str) -> Path:
    """Returns the Python of a separate virtual environment, because clients need conflicting versions."""

    def install(folder: Path) -> None:
        run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
        pip = (folder / "venv" / "bin" / "python", "-m", "pip", "install", "--quiet")
        run(*pip, *requirements, cwd=folder)

    return _cached(name, requirements, install) / "venv" / "bin" / "python"


def command(folder: Path, name: str) -> list[str | Path]:
    """Returns a command of an npm package, run by the folder's own node or else by the system's."""
    bin = folder / "node_modules" / ".bin"
    own = bin / "node"
    return [own if own.exists() else "node", (bin / name).resolve()]


def _cached(name: str, requirements: Sequence[str], install: Callable[[Path], None]) -> Path:
    key = hashlib.sha256("\n".join((sys.version, *requirements)).encode()).hexdigest()[:12]
    folder = CACHE / f"{name}-{key}"
    done = folder / ".complete"
    if not done.exists():
        for old in CACHE.glob(f"{name}-????????????"):
            shutil.rmtree(old)
        folder.mkdir(parents=True)
        install(folder)
        done.touch()
    return folder
