"""The README and the module map describe the repository as it is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project.module_map import MAPPED, folders, module_map, modules
from tests.project.test_architecture import ORDER

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
MODULES = ROOT / "docs" / "reference" / "modules.md"
PACKAGES = {
    "ascl-rules": "rule_server",
    "ascl-agent": "agent",
    "ascl-eval": "evaluation",
    "ascl-train": "trainer",
}
MAX_LINES = 120
EVERYDAY_TARGETS = {"help", "install", "demo", "test", "serve", "clean"}


def blocks() -> list[str]:
    return re.findall(r"^```\w*\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def tree() -> set[str]:
    """Returns the paths that the README's tree names."""
    (block,) = (block for block in blocks() if block.startswith("rules/"))
    paths, parent = set(), ""
    for line in block.splitlines():
        columns = re.split(r" {2,}", line.strip())
        if line.startswith("  "):
            paths.add(parent + columns[0])
        elif len(columns) == 2:
            parent = columns[0]
            paths.add(parent)
        else:
            paths |= set(columns)
    return paths


def test_the_readme_is_short_and_opens_with_the_two_commands() -> None:
    assert len(README.splitlines()) <= MAX_LINES
    assert [line.split("#")[0].strip() for line in blocks()[0].splitlines()] == ["make demo", "make test"]


def test_the_tree_names_every_sub_package_and_nothing_that_is_missing() -> None:
    named = tree()
    for path in named:
        assert (ROOT / path).exists(), f"the README's tree names {path}, which does not exist"
    for package in PACKAGES.values():
        for file in (ROOT / package).glob("*/__init__.py"):
            sub_package = f"{package}/{file.parent.name}/"
            assert sub_package in named, f"{sub_package} is missing in the README's tree"


@pytest.mark.parametrize("name", sorted(PACKAGES))
def test_every_command_of_the_readme_is_known(name: str) -> None:
    verbs = set(re.findall(rf"{name} ([a-z][a-z-]*)", README))
    assert verbs
    help = subprocess.run(
        [sys.executable, "-m", f"{PACKAGES[name]}.cli", "--help"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    ).stdout
    for verb in verbs:
        assert re.search(rf"^\W*{verb}\b", help, re.MULTILINE), f"{name} has no command {verb}"


@pytest.mark.parametrize("package", sorted(PACKAGES.values()))
def test_the_architecture_page_lists_the_import_order(package: str) -> None:
    section = ARCHITECTURE.partition(f"### `{package}`\n")[2].partition("\n### ")[0]
    cells = re.findall(r"^\| \d \| ([^|]+) \|", section, re.MULTILINE)
    listed = re.findall(r"`(\w+)`", " ".join(cells))
    rank = {name: at for at, line in enumerate(ORDER[package]) for name in line}
    assert sorted(listed) == sorted(rank)
    assert [rank[name] for name in listed] == sorted(rank.values())


def test_every_make_target_of_the_documents_exists_and_development_md_names_all() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    development = (ROOT / "docs" / "development.md").read_text(encoding="utf-8")
    for target in set(re.findall(r"^([a-z-]+):.*##", makefile, re.MULTILINE)) - EVERYDAY_TARGETS:
        assert f"`make {target}`" in development, f"docs/development.md does not explain make {target}"
    for page in (ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")):
        named = set(re.findall(r"`make ([a-z][a-z-]*)", page.read_text(encoding="utf-8")))
        assert named <= targets, f"{page.name}: {sorted(named - targets)}"


def test_the_module_map_is_complete_and_without_repeats() -> None:
    listed, folder = [], ""
    for line in module_map().splitlines():
        if heading := re.match(r"#+ `(.+)`", line):
            folder = heading[1]
        elif row := re.match(r"\| `(\S+\.py)` \| (.*) \|$", line):
            assert row[2], f"{folder}{row[1]} has no docstring"
            listed.append(folder + row[1])
    present = [file for part in MAPPED for file in (ROOT / part).rglob("*.py")]
    assert sorted(listed) == sorted(
        file.relative_to(ROOT).as_posix() for file in present if file.stem not in ("__init__", "__main__")
    )
    assert len(listed) == sum(len(modules(each)) for each in folders())


def test_the_module_map_is_current() -> None:
    assert MODULES.read_text(encoding="utf-8") == module_map(), "run `make reference`"
