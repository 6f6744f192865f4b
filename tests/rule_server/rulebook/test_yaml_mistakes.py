"""Common mistakes in files that people write: each is named with its line and the smallest fix."""

from __future__ import annotations

from pathlib import Path

import pytest

from rule_server.rulebook import LintProblem
from rule_server.rulebook.loader import read_rulebook
from tests.fakes.rules.rulebooks import rule, write_rulebook

TEXT = """\
---
id: cyber.malware
title: Malicious software
stance: decline
applies_when: Someone asks about malware.
not_when: Someone asks what malware means.
owner: policy-team
review_by: 2099-01-01
queries:
- how to do malware
- help with malware
- explain malware
- instructions for malware
- why malware
examples:
  benign:
  - What is malware?
  harmful: []
status: active
---

## Fine

Explaining.

## Not fine

Doing.

## How to answer

Plainly.
"""


def problems_of(folder: Path, text: str, name: str = "malware") -> list[LintProblem]:
    write_rulebook(folder, rule("cyber.repair", stance="answer", not_when=None), rule("cyber.malware"))
    (folder / "cyber" / f"{name}.md").write_text(text, encoding="utf-8")
    return read_rulebook(folder)[1]


@pytest.mark.parametrize(
    ("old", "new", "line", "fix"),
    [
        # colons
        ("title: Mal", "title: Fraud: mal", 3, 'put it in quotes: title: "Fraud: malicious software"'),
        ("- help", "- Question: help", 11, 'put it in quotes: - "Question: help with malware"'),
        ("- help", "- can you: help", 11, 'put it in quotes: - "can you: help with malware"'),
        ("title: M", "title:M", 3, "write: title: Malicious software"),
        ("title: M", "title M", 3, "write: title: Malicious software"),
        ("title: M", "title = M", 3, "write: title: Malicious software"),
        ("title: M", "title： M", 3, "type: title: Malicious software"),
        ("title: M", "title:\u00a0M", 3, "type: title: Malicious software"),
        (
            "about malware.\n",
            "about malware\n  in two ways: by phone.\n",
            5,
            "from its first to its last word",
        ),
        # dates
        ("2099-01-01", "01.12.2099", 8, "write 2099-12-01: the year first, then month and day"),
        ("2099-01-01", "1.12.99", 8, "write 2099-12-01"),
        ("2099-01-01", "24. Dezember 2099", 8, "write 2099-12-24"),
        ("2099-01-01", "2099/12/1", 8, "write 2099-12-01"),
        ("2099-01-01", "12/31/2099", 8, "write 2099-12-31"),
        ("2099-01-01", "03/04/2099", 8, "as YEAR-MONTH-DAY"),
        ("2099-01-01", "31.02.2099", 8, "as YEAR-MONTH-DAY"),
        ("2099-01-01", "2099-02-31", 8, "as YEAR-MONTH-DAY"),
        # tabs and indentation
        ("title:", "\ttitle:", 3, "use spaces in place of tabs"),
        ("- help", "\t- help", 11, "use spaces in place of tabs"),
        ("title:", " title:", 3, "remove the spaces before it"),
        ("  harmful", " harmful", 18, "begin it with 2 spaces, as line 16"),
        ("  - What", " - What", 17, "begin it with 2 spaces, as line 16"),
        ("- help", "-help", 11, "write: - help with malware"),
        ("about malware.\n", "about malware\nand more.\n", 6, "begin the line with two spaces"),
        # quotes
        ("title: M", 'title: "M', 3, 'close it: title: "Malicious software"'),
        ("- help", "- 'help", 11, "close it: - 'help with malware'"),
        ("Malicious software\nstance: decline", '"Open\nstance: "decline"', 3, 'close it: title: "Open"'),
        ("title: Malicious software", "title: 'It's bad'", 3, 'use: title: "It\'s bad"'),
        ("title: M", 'title: "A" m', 3, "put all of it in quotes: title: '\"A\" malicious software'"),
        ("title: M", "title: @m", 3, 'put it in quotes: title: "@malicious software"'),
        ("title: Malicious", "title: *very*", 3, 'put it in quotes: title: "*very* software"'),
        ("title: Malicious software", "title: 2026", 3, 'put the text in quotes: title: "2026"'),
        ("title: Malicious software", "title: yes", 3, 'put the text in quotes: title: "yes"'),
        ("title: M", "title: #m", 3, "`#` begins a comment"),
        # keys
        ("status: active", "status: active\ntitle: Again", 20, "remove it, or the one in line 3"),
        ("title:", "titel:", 3, "correct its spelling to `title` in line 3"),
        ("## Not fine", "## Not Fine", 26, "write `## Not fine`"),
        ("## How to answer", "# How to answer:", 30, "write `## How to answer`"),
        # fences
        ("---\nid", "id", 1, "put a line `---` before `id: cyber.malware`"),
        ("---\n\n## Fine", "\n## Fine", 21, "put a line `---` before line 21 (`## Fine`)"),
        ("---\n\n## Fine", "----\n\n## Fine", 20, "write `---` in line 20"),
        ("---\nid", "—\nid", 1, "write `---` in line 1"),
        ("---\nid", "\n---\nid", 1, "remove the empty lines before line 2"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_fix(
    tmp_path: Path, old: str, new: str, line: int, fix: str
) -> None:
    assert old in TEXT
    [problem] = problems_of(tmp_path, TEXT.replace(old, new, 1))
    assert fix.casefold() in problem.fix.casefold()
    assert problem.line == line
    assert f"line {line}" in str(problem) or line == 1 or "---" in problem.problem


def test_all_mistakes_of_all_files_are_reported_at_once(tmp_path: Path) -> None:
    bad = (
        TEXT.replace("Malicious software", "Fraud: what is fine")
        .replace("stance: decline", "stance: forbid")
        .replace("about malware.", '"half')
        .replace("2099-01-01", "01.12.2099")
        .replace("- help", "\t- help")
        .replace("Doing.", "")
    )
    problems_of(tmp_path, TEXT.replace("title: M", "title:M").replace("cyber.malware", "cyber.b"), "b")
    found = problems_of(tmp_path, bad)
    own = [(problem.line, problem.fix[:20]) for problem in found if problem.rule == "cyber/malware.md"]
    assert own == [
        (3, "put it in quotes: ti"),
        (4, "input should be 'dec"),
        (8, "write 2099-12-01: th"),
        (11, "use spaces in place "),
        (None, "write a sentence"),
    ]
    assert [problem.line for problem in found if problem.rule == "cyber/b.md"] == [3]


def test_applying_the_fixes_makes_the_file_readable(tmp_path: Path) -> None:
    bad = TEXT.replace("Malicious software", "Fraud: what is fine").replace("- help", "- Question: help")
    for problem in problems_of(tmp_path, bad):
        assert problem.line is not None
        lines = bad.split("\n")
        lines[problem.line - 1] = problem.fix.partition("quotes: ")[2]
        bad = "\n".join(lines)
    assert problems_of(tmp_path, bad) == []


@pytest.mark.parametrize("text", ["---\n---\n", "---\n\n---\n", "---\n", "", "\n\n"])
def test_a_file_without_keys_is_one_problem(tmp_path: Path, text: str) -> None:
    [problem] = problems_of(tmp_path, text)
    assert "---" in problem.fix or "key: value" in problem.fix


def test_a_layer_with_a_broken_manifest_still_lies_over_the_packaged_rules(tmp_path: Path) -> None:
    path, text = rule("cyber.mine", stance="answer")
    (tmp_path / "cyber").mkdir()
    (tmp_path / path).write_text(text, encoding="utf-8")
    (tmp_path / "rulebook.yaml").write_text(
        "name: mine\nversion: 1.0\nextends: ascl-core\n", encoding="utf-8"
    )
    [problem] = read_rulebook(tmp_path)[1]
    assert (problem.line, problem.fix) == (2, "write three numbers, such as 1.0.0")


def test_mistakes_in_the_manifest_and_in_categories_are_named_too(tmp_path: Path) -> None:
    problems_of(tmp_path, TEXT)
    (tmp_path / "rulebook.yaml").write_text("name: my rules: mine\nversion: 1.0.0\n", encoding="utf-8")
    file = tmp_path / "cyber" / "_category.md"
    text = file.read_text(encoding="utf-8").replace("'2026-06-01'", "01.06.2026")
    file.write_text(text.replace("title: Cyber", "title: Cyber: all"), encoding="utf-8")
    found = {(problem.rule, problem.line, problem.fix) for problem in read_rulebook(tmp_path)[1]}
    assert ("rulebook.yaml", 1, 'put it in quotes: name: "my rules: mine"') in found
    assert any(name == "cyber/_category.md" and "2026-06-01" in fix for name, _, fix in found)
    assert any(name == "cyber/_category.md" and '"Cyber: all"' in fix for name, _, fix in found)
