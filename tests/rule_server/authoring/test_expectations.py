"""Expected results of questions: how expect.yaml is read, layered and checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from rule_server import lint_rules, load_rulebook
from rule_server.authoring.expectations import (
    MAX_CASES,
    Outcome,
    check,
    read_expectations,
    split_runnable,
    unknown_ids,
)
from rule_server.authoring.replay import replay
from rule_server.retrieval.index import RuleIndex
from rule_server.settings import Settings
from tests.fakes.rules.rulebooks import rule, write_rulebook
from tests.fakes.rules.toy_service import ToyEncoder

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    return write_rulebook(
        tmp_path / "rules",
        rule("cyber.malware", title="Malicious software"),
        rule("cyber.repair", stance="answer", title="Repairing computers", not_when=None),
        rule("cyber.new", status="draft"),
        rule("kitchen.knives", stance="answer", title="Kitchen knives", not_when=None),
    )


def expect(folder: Path, text: str) -> Path:
    (folder / "expect.yaml").write_text(text, encoding="utf-8")
    return folder


def run(rules: Path) -> list[Outcome]:
    """Runs all cases of a folder with the toy encoder, which finds a rule by its words."""
    book, encoder = load_rulebook(rules), ToyEncoder()
    read = read_expectations(rules)
    assert read.problems == []
    runnable, skipped = split_runnable(read.cases, book)
    settings = Settings(threshold=0.45, watch=False)
    index = RuleIndex.build(book, encoder)
    [answers] = replay([index], encoder, settings, [each.case.question for each in runnable])
    return skipped + [check(each, answer) for each, answer in zip(runnable, answers, strict=True)]


def problems(folder: Path) -> list[str]:
    return [str(problem) for problem in lint_rules(folder).problems]


def test_the_four_kinds_of_expectations_hold_or_fail_with_the_reason(rules: Path) -> None:
    expect(
        rules,
        "cases:\n"
        "- question: how to do malware\n  first: cyber.malware\n"
        "- question: How to do malware?\n  first: kitchen.knives\n"
        "- question: explain malware\n  includes: cyber.malware\n  excludes: [kitchen.knives]\n"
        "- question: why malware\n  excludes: cyber.malware\n"
        "- question: instructions for malware\n  nothing: true\n"
        "- question: zebra quagga okapi\n  nothing: true\n"
        "- question: a draft\n  first: cyber.new\n",
    )
    results = {outcome.expectation.line: outcome for outcome in run(rules)}
    statuses = [results[line].status for line in (2, 4, 6, 9, 11, 15)]
    assert statuses == ["ok", "failed", "ok", "failed", "failed", "skipped"]
    assert results[4].reason.startswith("must find kitchen.knives first, but finds cyber.malware")
    assert results[9].reason.startswith("must not find cyber.malware, but finds ")
    assert results[11].reason.startswith("must find nothing, but finds ")
    assert results[15].reason == "cyber.new is a draft"
    narrower = f"word the title, `applies_when` and queries of {results[11].found[0]} more narrowly"
    assert narrower in str(results[11].as_problem())
    assert "more narrowly" not in str(results[9].as_problem())
    assert str(results[4].as_problem()).startswith("expect.yaml: line 4: 'How to do malware?' must find")


def test_cases_change_neither_the_digest_nor_what_is_served(rules: Path) -> None:
    before = load_rulebook(rules).digest
    expect(rules, "cases:\n- question: x\n  nothing: true\n")
    assert load_rulebook(rules).digest == before
    expect(rules, "cases: [")
    assert load_rulebook(rules).digest == before
    assert problems(rules)[-1].startswith("expect.yaml: the YAML cannot be read in line 1")


def test_a_folder_adds_its_cases_and_replaces_those_with_the_same_question(
    tmp_path: Path, rules: Path
) -> None:
    expect(rules, "cases:\n- question: one\n  nothing: true\n- question: Two  words\n  nothing: true\n")
    top = write_rulebook(tmp_path / "top", rule("kitchen.pans", stance="answer"))
    expect(top, "cases:\n- question: two Words\n  first: kitchen.pans\n- question: three\n  nothing: true\n")
    read = read_expectations((rules, top))
    assert [(each.place, str(each.case)) for each in read.cases] == [
        ("rules/expect.yaml:2", "nothing"),
        ("top/expect.yaml:2", "first kitchen.pans"),
        ("top/expect.yaml:4", "nothing"),
    ]


def test_a_layer_over_the_packaged_rules_keeps_their_cases(tmp_path: Path) -> None:
    top = write_rulebook(tmp_path / "bank", rule("banking.cards", stance="answer"))
    manifest = "name: bank\nversion: 1.0.0\nextends: ascl-core\nretire: [cyber.malware]\n"
    (top / "rulebook.yaml").write_text(manifest, encoding="utf-8")
    expect(top, "cases:\n- question: my card is lost\n  first: banking.cards\n")
    core = read_expectations(ROOT / "rules").cases
    read = read_expectations(top)
    assert [each.place for each in read.cases][-1] == "bank/expect.yaml:2"
    assert len(read.cases) == len(core) + 1
    _, skipped = split_runnable(read.cases, load_rulebook(top))
    assert {outcome.reason for outcome in skipped} == {"cyber.malware is retired"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- question: x\n", "the YAML is not a list of `key: value` lines"),
        ("cases:\n- question: x\n", "(line 2); say what it expects: first, includes, excludes or nothing"),
        ("cases:\n- first: cyber.malware\n", "`cases.0.question` is missing"),
        ("cases:\n- question: x\n  first: cyber\n", "`cases.0.first` cannot be 'cyber' (line 3)"),
        ("cases:\n- question: x\n  frist: cyber.malware\n", "correct its spelling to `first` in line 3"),
        ("cases:\n- question: a: b\n  nothing: true\n", "line 2: the text of `question` contains a colon"),
        ("cases:\n- question: x\n  nothing: true\n  first: cyber.malware\n", "keep either the rules"),
        (
            "cases:\n- question: x\n  nothing: true\n- question: X\n  nothing: true\n",
            "the question in line 4 is in line 2 too; keep one of the two",
        ),
        (
            "cases:\n- question: x\n  first: cyber.malwar\n",
            "line 2 names cyber.malwar, which is not a rule; write cyber.malware",
        ),
        ("cases:\n- &a {question: x, nothing: true}\n- *a\n", "an alias is not allowed"),
        ("cases:\n" + "- {question: x, nothing: true}\n" * (MAX_CASES + 1), "at most 500 items"),
        ("cases: []\n#" + "x" * 70_000, "it is larger than 64 KiB"),
    ],
)
def test_an_invalid_file_is_a_lint_problem_with_its_line(rules: Path, text: str, said: str) -> None:
    expect(rules, text)
    found = problems(rules)
    assert any(line.startswith("expect.yaml: ") and said in line for line in found), found


def test_a_link_or_pipe_in_its_place_is_refused(rules: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("cases: []", encoding="utf-8")
    (rules / "expect.yaml").symlink_to(tmp_path / "secret")
    assert "it is a symbolic link" in read_expectations(rules).problems[0].problem


def test_the_packaged_cases_name_rules_that_exist() -> None:
    read = read_expectations(ROOT / "rules")
    book = load_rulebook(ROOT / "rules")
    assert len(read.cases) >= 60
    assert read.problems == unknown_ids(read.cases, book.served) == []
    assert sum(each.case.nothing for each in read.cases) >= 12
