"""Outside packages, fetched once into `build/clients/` and kept until what is asked for changes.

node("typescript-1", "@modelcontextprotocol/sdk@1.32.2") / "node_modules"
venv("python-1", "mcp==1.30.0")            # its python
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
    """Standard output of a command. Raises AssertionError with all that it said when it fails."""
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def node(name: str, *packages: str) -> Path:
    """A folder in which scripts can import these npm packages, and run their commands."""

    def install(folder: Path) -> None:
        (folder / "package.json").write_text(json.dumps({"private": True}), encoding="utf-8")
        run("npm", "install", "--no-audit", "--no-fund", *packages, cwd=folder)

    return _kept(name, packages, install)


def venv(name: str, *requirements: str) -> Path:
    """The python of a virtual environment of its own, since clients disagree on versions."""

    def install(folder: Path) -> None:
        run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
        pip = (folder / "venv" / "bin" / "python", "-m", "pip", "install", "--quiet")
        run(*pip, *requirements, cwd=folder)

    return _kept(name, requirements, install) / "venv" / "bin" / "python"


def command(folder: Path, name: str) -> list[str | Path]:
    """A command of an npm package, run by the node of that folder if it has one, else by the machine's."""
    bin = folder / "node_modules" / ".bin"
    own = bin / "node"
    return [own if own.exists() else "node", (bin / name).resolve()]


def _kept(name: str, wanted: Sequence[str], install: Callable[[Path], None]) -> Path:
    key = hashlib.sha256("\n".join((sys.version, *wanted)).encode()).hexdigest()[:12]
    folder = CACHE / f"{name}-{key}"
    done = folder / ".complete"
    if not done.exists():
        for old in CACHE.glob(f"{name}-????????????"):
            shutil.rmtree(old)
        folder.mkdir(parents=True)
        install(folder)
        done.touch()
    return folder
