"""Tools for authors: expected results, near misses, new rules, counts, and tables that fit the screen."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.fakes.rules.rulebooks import rule, write_rulebook
from tests.rule_server.authoring.test_stats import jsonl
from tests.rule_server.cli.test_authoring import VIRUS, run_json
from tests.rule_server.cli.test_commands import cli, refused

LONG = "a-category-with-a-very-long-name.a-rule-whose-name-would-fill-most-of-a-line-in-any-table"


def expect(folder: Path, *cases: str) -> Path:
    (folder / "expect.yaml").write_text(
        "cases:\n" + "".join(f"- {case}\n" for case in cases), encoding="utf-8"
    )
    return folder


def test_expected_results_are_checked_by_query_lint_and_diff(
    tmp_path: Path, rules: Path, artefact: Path
) -> None:
    where = ("--rules", rules, "--artefact", artefact)
    right, wrong = (
        f"{{question: {VIRUS}, first: cyber.malware}}",
        "{question: hello there, first: kitchen.knives}",
    )
    expect(rules, right)
    passed = run_json("query", "--expect", *where)
    assert (passed["ok"], passed["cases"], passed["passed"]) == (True, 1, 1)
    assert run_json("lint", *where)["expectations"] == {"cases": 1, "passed": 1, "failed": 0, "skipped": 0}
    expect(rules, right, wrong)
    done = cli("query", "--expect", *where)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "1 of 2 expected results hold, 1 fail"
    assert re.search(r"^FAILED  expect.yaml:3  hello there", done.stdout, re.MULTILINE)
    assert "expect.yaml:3: 'hello there' must find kitchen.knives first, but finds" in done.stdout
    report = run_json("lint", *where, code=1)
    assert [problem["line"] for problem in report["problems"]] == [3]
    assert cli("query", VIRUS.upper(), "--expect", *where).returncode == 0
    assert "no case has this question" in refused(cli("query", "another", "--expect", *where), 2)
    later = write_rulebook(tmp_path / "later", rule("cyber.malware", title="Malicious software"))
    expect(later, right)
    difference = run_json("diff", rules, later, "--artefact", artefact)
    assert (difference["expectations"]["b"]["ok"], difference["expectations"]["a"]["passed"]) == (True, 1)
    expect(later, f"{{question: {VIRUS}, nothing: true}}")
    assert run_json("diff", rules, later, "--artefact", artefact, code=1)["expectations"]["b"]["failed"] == 1


def test_without_an_encoder_expected_results_are_skipped_and_counted(tmp_path: Path, rules: Path) -> None:
    expect(rules, f"{{question: {VIRUS}, first: kitchen.knives}}")
    none = ("--artefact", tmp_path / "none")
    assert run_json("lint", "--rules", rules, *none)["expectations"]["skipped"] == 1
    done = cli("diff", rules, rules, *none)
    assert done.returncode == 0
    assert "skipped: 1 expected results" in done.stderr


def test_the_packaged_rules_give_their_expected_results(artefact: Path) -> None:
    result = run_json("query", "--expect", "--artefact", artefact)
    assert (result["failed"], result["skipped"]) == (0, 0)
    assert result["passed"] >= 60


def test_query_shows_near_misses_and_the_rule_that_comes_with_everything(rules: Path, artefact: Path) -> None:
    asked = ("query", VIRUS, "--rules", rules, "--artefact", artefact)
    data = run_json(*asked, "--top-k", "1")
    assert [found["id"] for found in data["rules"]] == ["cyber.malware", "cyber.repair"]
    assert data["carried"] == "cyber.repair"
    assert [near["id"] for near in data["near_misses"]] == ["kitchen.knives"]
    assert data["threshold_origin"] == "default"
    shown = cli(*asked, "--top-k", "1")
    assert re.search(
        r"^cyber.repair +[-.\d]+ +returned with every answer of its category", shown.stderr, re.M
    )
    assert re.search(r"^kitchen.knives +[-.\d]+ +not returned: ", shown.stderr, re.M)
    assert "cyber.repair comes with everything that this category returns" in shown.stderr
    assert "the default: `ascl-rules calibrate` finds one" in shown.stderr
    assert "kitchen.knives" not in shown.stdout
    nothing = cli("query", "What is 17 times 23?", "--rules", rules, "--artefact", artefact)
    assert len(re.findall("not returned: under the threshold", nothing.stderr)) == 3
    assert "there is no question" in refused(cli("query"), 2)


def test_new_starts_a_draft_that_lints_in_a_new_folder(tmp_path: Path) -> None:
    mine = tmp_path / "bank"
    where = ("--rules", mine)
    done = cli("new", "banking.card-limits", *where)
    assert done.returncode == 0
    assert [Path(line).name for line in done.stdout.splitlines()] == [
        "rulebook.yaml",
        "_category.md",
        "card-limits.md",
    ]
    for step in ("edit ", "ascl-rules lint --rules", "ascl-rules query --draft", "status: active"):
        assert step in done.stderr
    assert "`ascl-rules new banking.general --stance answer --rules" in done.stderr
    title = 'Loans: what is fine, and "more"'
    assert cli("new", "banking.loans", "--stance", "decline", "--title", title, *where).returncode == 0
    in_old_category = cli("new", "cyber.cards", *where)
    assert in_old_category.returncode == 0
    assert "--stance answer" not in in_old_category.stderr
    assert not (mine / "cyber" / "_category.md").exists()
    report = run_json("lint", *where, "--artefact", tmp_path / "none")
    own = run_json("lint", "--artefact", tmp_path / "none")
    assert (report["ok"], report["rules"] - own["rules"]) == (True, 3)


def test_new_overwrites_nothing_and_refuses_what_is_no_id(tmp_path: Path) -> None:
    mine = tmp_path / "bank"
    assert cli("new", "banking.cards", "--rules", mine).returncode == 0
    file = mine / "banking" / "cards.md"
    file.write_text("mine", encoding="utf-8")
    assert "cards.md exists: choose another id" in refused(cli("new", "banking.cards", "--rules", mine), 2)
    assert file.read_text(encoding="utf-8") == "mine"
    for id in ("banking", "Banking.cards", "../x.y", "a.b.c", "a.b/c"):
        assert "is not the id of a rule" in refused(cli("new", id, "--rules", mine), 2)
    assert "is not a stance" in refused(cli("new", "a.b", "--stance", "refuse", "--rules", mine), 2)
    assert "no rules folder is named" in refused(cli("new", "a.b"), 2)
    assert sorted(path.name for path in mine.rglob("*.*")) == ["_category.md", "cards.md", "rulebook.yaml"]


def test_lint_and_build_count_alike_also_with_broken_files(tmp_path: Path, artefact: Path) -> None:
    rules = write_rulebook(
        tmp_path / "rules",
        rule("cyber.a", stance="answer"),
        rule("cyber.b", queries=list("abcde")),
        rule("cyber.b", lang="de", queries=list("fghij")),
        rule("garden.c", status="draft", queries=list("klmno")),
    )
    where = ("--rules", rules, "--artefact", artefact)
    build, lint = cli("build", *where), cli("lint", *where)
    counts = "3 rules (2 active, 1 draft; 1 translation) in 2 categories"
    assert f": {counts}, " in build.stdout
    assert f"{counts}, " in lint.stdout
    (rules / "cyber" / "b.md").write_text("broken", encoding="utf-8")
    (rules / "docs").mkdir()
    (rules / "docs" / "guide.md").write_text("not a rule", encoding="utf-8")
    report = run_json("lint", *where, code=1)
    assert (report["rules"], report["categories"]) == (3, 2)
    assert [problem["rule"] for problem in report["problems"]] == ["cyber/b.md"]


def test_valid_files_are_checked_although_another_file_is_broken(tmp_path: Path) -> None:
    rules = write_rulebook(
        tmp_path / "rules",
        rule("cyber.a", stance="answer", review_by="2020-01-01", references=["cyber.b", "nowhere"]),
        rule("cyber.b", owner=None),
    )
    report = run_json("lint", "--rules", rules, "--artefact", tmp_path / "none", code=1)
    said = [problem["problem"] for problem in report["problems"]]
    assert said == [
        "`owner` is missing",
        "its review was due on 2020-01-01",
        "the link 'nowhere' leads nowhere",
    ]


@pytest.fixture
def wide(tmp_path: Path, artefact: Path) -> tuple[str | Path, ...]:
    """A rulebook with long ids and texts, in English and Chinese, and its cases."""
    words = " ".join(["someone asks for a computer virus"] * 8)
    rules = write_rulebook(
        tmp_path / "rules",
        rule(LONG, title="规则 " * 40, applies_when=words, references=["nowhere" * 20]),
        rule("cyber.repair", stance="answer", not_when=None),
    )
    expect(rules, f"{{question: {words}, first: {LONG}}}", f"{{question: {'病毒' * 60}, nothing: true}}")
    return ("--rules", rules, "--artefact", artefact)


COMMANDS = ("lint", "query", "expect", "stats", "diff", "settings", "calibrate", "owners")


@pytest.mark.parametrize("command", COMMANDS)
def test_output_fits_80_columns(
    tmp_path: Path, artefact: Path, wide: tuple[str | Path, ...], command: str
) -> None:
    text = "someone asks for a computer virus, " * 6
    other = write_rulebook(tmp_path / "other", rule("cyber.malware"))
    file = jsonl(
        tmp_path / "rows.jsonl",
        {"prompt": text, "kind": "harmful", "source": "a-source-with-a-long-name" * 4},
        {"prompt": "how do I bake bread, please, " * 8, "kind": "benign_plain"},
        {"prompt": "病毒" * 60, "kind": "a-kind-with-a-name-that-is-too-long-for-a-table"},
    )
    arguments: dict[str, tuple[str | Path, ...]] = {
        "lint": ("lint", *wide),
        "query": ("query", text, *wide),
        "expect": ("query", "--expect", *wide),
        "stats": ("stats", file, *wide),
        "diff": ("diff", wide[1], other, "--questions", file, "--artefact", artefact),
        "settings": ("settings",),
        "calibrate": ("calibrate", file, "--dry-run", *wide),
        "owners": ("owners", *wide[:2]),
    }
    done = cli(*arguments[command], COLUMNS="80")
    assert done.returncode in (0, 1), done.stderr
    table = [line for line in done.stderr.splitlines() if not line.startswith("ascl-rules: ")]
    lines = [*done.stdout.splitlines(), *(table if command == "query" else [])]
    assert lines
    assert max(map(columns, lines)) <= 80, max(lines, key=columns)
    if command not in ("owners", "calibrate"):
        assert max(map(columns, lines)) > 60
    if command == "settings":
        assert "…" in done.stdout
        assert "…" not in cli("settings", "--json", COLUMNS="80").stdout
        assert "…" not in cli("settings").stdout


def columns(line: str) -> int:
    from rich.cells import cell_len

    return cell_len(line)


def test_json_is_never_cut(wide: tuple[str | Path, ...]) -> None:
    done = cli("query", "--expect", "--json", *wide, COLUMNS="80")
    assert json.loads(done.stdout)["results"][0]["expected"]["first"] == LONG
