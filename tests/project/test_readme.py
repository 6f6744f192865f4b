"""What the README says holds in a fresh clone: its tree is the tree, its commands are commands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PARTS = {
    "ascl-rules": "rule_server",
    "ascl-agent": "agent",
    "ascl-eval": "evaluation",
    "ascl-train": "trainer",
}


def blocks() -> list[str]:
    return re.findall(r"```\n(.*?)```", README, re.DOTALL)


def test_the_readme_opens_with_the_two_commands_and_ends_with_the_tree() -> None:
    first, *_, tree = blocks()
    assert [line.split("#")[0].strip() for line in first.splitlines()] == ["make demo", "make test"]
    assert README.rstrip().endswith("```")
    assert tree.startswith("rules/")


def test_every_file_and_folder_of_the_tree_is_there_and_every_module_is_in_the_tree() -> None:
    tree = blocks()[-1]
    named: set[Path] = set()
    folder = ROOT
    for line in tree.splitlines():
        indent, name = re.match(r"( *)(\S+)", line).groups()  # type: ignore[union-attr]
        if not indent:
            folder = ROOT
        path = (folder / name) if indent else ROOT / name
        assert path.exists() or "<" in name, f"{name} is in the README's tree but not in the folder"
        if not indent and name.endswith("/"):
            folder = path
        named.add(path)
    for part in PARTS.values():
        for module in (ROOT / part).glob("*.py"):
            assert module.name == "__init__.py" or module in named, (
                f"{module.name} is not in the README's tree"
            )


@pytest.mark.parametrize("name", sorted(PARTS))
def test_every_command_of_the_readme_is_known(name: str) -> None:
    verbs = set(re.findall(rf"{name} ([a-z][a-z-]*)", README))
    assert verbs
    help = subprocess.run(
        [sys.executable, "-m", f"{PARTS[name]}.cli", "--help"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    ).stdout
    for verb in verbs:
        assert re.search(rf"^\W*{verb}\b", help, re.MULTILINE), f"{name} has no command {verb}"
