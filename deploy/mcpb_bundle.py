"""Builds the bundle that desktop hosts install with one click: `make mcpb` (needs npm).

The bundle contains the ASCL wheel, the built index, and a pyproject.toml from which the host's uv installs
the dependencies at the pinned versions. It does not need torch, because the index contains the encoder.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "mcpb"
PACKER = "@anthropic-ai/mcpb@2.1.2"
PROJECT = """[project]
name = "ascl-rules-bundle"
version = "{version}"
requires-python = ">=3.11"
dependencies = ["ascl[server]"]

[tool.uv]
package = false
constraint-dependencies = [
{constraints}
]

[tool.uv.sources]
ascl = {{ path = "{wheel}" }}
"""


def run(*command: str | Path) -> None:
    """Runs a command with its output on the terminal. Raises SystemExit if it fails."""
    if subprocess.run([*map(str, command)], cwd=ROOT, check=False).returncode != 0:
        raise SystemExit(f"mcpb: `{' '.join(map(str, command))}` failed")


def main() -> None:
    if shutil.which("npx") is None:
        raise SystemExit("mcpb: npx is missing: install Node.js with npm")
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    folder, index = WORK / "bundle", WORK / "artefact"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    source = WORK / "source"
    shutil.rmtree(source, ignore_errors=True)
    # Builds the wheel from a copy, so that no build files remain in the checkout.
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("rules", "rule_server", "agent", "evaluation", "trainer"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, source)
    [wheel] = folder.glob("*.whl")
    run(sys.executable, "-m", "rule_server.cli", "build", "--artefact", index)
    shutil.copytree(index, folder / "artefact", ignore=shutil.ignore_patterns(".*"))
    for name in ("manifest.json", "server.py"):
        shutil.copy(ROOT / "deploy" / "mcpb" / name, folder)
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    constraints = "\n".join(f'  "{pin}",' for pin in pins if pin and not pin.startswith("#"))
    project = PROJECT.format(version=version, constraints=constraints, wheel=wheel.name)
    (folder / "pyproject.toml").write_text(project, encoding="utf-8")
    (ROOT / "dist").mkdir(exist_ok=True)
    run("npx", "--yes", PACKER, "validate", folder / "manifest.json")
    run("npx", "--yes", PACKER, "pack", folder, ROOT / "dist" / f"ascl-rules-{version}.mcpb")


if __name__ == "__main__":
    main()
