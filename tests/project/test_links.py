"""Every relative link and image of the README, the changelog, the docs and the benchmarks leads to a file."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def pages() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "README.md", "CHANGELOG.md", "docs", "benchmarks"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    ).stdout.split()
    return sorted(ROOT / name for name in listed if name.endswith(".md") and (ROOT / name).is_file())


def prose(page: Path) -> str:
    """Returns the text of a page without its code blocks and inline code."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "", text)


def anchors(page: Path) -> set[str]:
    """Returns the anchors that GitHub makes of the headings of a page."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> Iterator[str]:
    for target in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        if not linked.exists():
            yield f"{target}: no such file"
        elif anchor and anchor not in anchors(linked):
            yield f"{target}: no such heading"


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    assert list(broken_links(page)) == []


def test_every_path_of_the_repository_that_a_page_names_exists() -> None:
    path = re.compile(r"`((?:rule_server|agent|evaluation|trainer|benchmarks|tests|docs|deploy)/[\w./-]+)`")
    for page in pages():
        text = page.read_text(encoding="utf-8")
        if page.name == "CHANGELOG.md":
            text = re.sub(r"^\|.*$", "", text, flags=re.MULTILINE)  # the tables name moved files
        missing = {name for name in path.findall(text) if not (ROOT / name).exists()}
        assert not missing, f"{page.relative_to(ROOT)} names {sorted(missing)}"


def test_a_planted_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# One: `two`, three\n[a](page.md#one-two-three) [b](gone.md) ![c](page.md#gone) [d](https://x.org)\n"
        "```\n[e](in-code.md)\n```\n",
        encoding="utf-8",
    )
    assert list(broken_links(page)) == ["gone.md: no such file", "page.md#gone: no such heading"]
