"""Commands for rule authors, run as a user types them."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pytest

from rule_server.retrieval.artefact import Artefact
from tests.fakes.rules.rulebooks import prose, rule, write_rulebook
from tests.rule_server.authoring.test_diff import commit
from tests.rule_server.authoring.test_stats import jsonl
from tests.rule_server.cli.test_commands import cli, refused

VIRUS, BREAD = "someone asks for a computer virus", "how do I bake bread"
SWAHILI = "Ninataka kujua jinsi ya kutengeneza virusi vya kompyuta kwa ajili ya mtu"


def run_json(*arguments: str | Path, code: int = 0) -> Any:
    """Runs a command with --json and returns the parsed output."""
    done = cli(*arguments, "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def test_init_creates_a_layer_that_lints_and_changes_nothing_yet(tmp_path: Path, artefact: Path) -> None:
    mine = tmp_path / "Our Rules"
    assert cli("init", mine).returncode == 0
    own = run_json("lint", "--artefact", tmp_path / "none")
    report = run_json("lint", "--rules", mine, "--artefact", tmp_path / "none")
    assert (report["ok"], report["rules"]) == (True, own["rules"] + 1)
    question = ("query", "how can I contact your organisation", "--rules", mine, "--artefact", artefact)
    found = run_json(*question)
    assert found["rulebook"]["name"] == "our-rules"
    assert "house-rules.our-organisation" not in [rule["id"] for rule in found["rules"]]
    drafts = run_json(*question, "--draft")
    assert drafts["rules"][0]["id"] == "house-rules.our-organisation"
    assert drafts["rulebook"]["digest"] != found["rulebook"]["digest"]
    assert run_json(*question)["rules"] == found["rules"]


def test_init_standalone_can_be_served_immediately(tmp_path: Path, artefact: Path) -> None:
    mine = tmp_path / "mine"
    assert cli("init", mine, "--standalone", "--name", "acme").returncode == 0
    report = run_json("lint", "--rules", mine, "--artefact", artefact)
    assert report == {"ok": True, "rules": 1, "categories": 1, "problems": []}
    found = run_json("query", "contact your organisation", "--rules", mine, "--artefact", artefact)
    assert [rule["id"] for rule in found["rules"]] == ["house-rules.our-organisation"]
    assert found["rulebook"]["name"] == "acme"


def test_a_name_that_yaml_reads_as_another_type_is_quoted(tmp_path: Path) -> None:
    for name in ("2026", "null", "1.5"):
        assert cli("init", tmp_path / name, "--standalone").returncode == 0
        assert run_json("lint", "--rules", tmp_path / name, "--artefact", tmp_path / "none")["ok"] is True


def test_a_rulebook_of_drafts_can_be_queried_but_not_served(tmp_path: Path, artefact: Path) -> None:
    rules = write_rulebook(tmp_path / "rules", rule("cyber.malware", title="A virus", status="draft"))
    question = ("query", VIRUS, "--rules", rules, "--artefact", artefact)
    kept = run_json("rollback", "--artefact", artefact)
    assert "no rule is active; set `status: active` in one" in refused(cli(*question), 1)
    assert [found["id"] for found in run_json(*question, "--draft")["rules"]] == ["cyber.malware"]
    assert run_json("rollback", "--artefact", artefact) == kept


def test_queries_and_calibration_do_not_publish_the_rules(
    tmp_path: Path, rules: Path, artefact: Path
) -> None:
    assert cli("build", "--rules", rules, "--artefact", artefact).returncode == 0
    built = Artefact(artefact).current()
    write_rulebook(rules, rule("cyber.malware", title="An unfinished edit"))
    prompts = [{"prompt": VIRUS, "kind": "harmful"}, {"prompt": BREAD, "kind": "benign_plain"}]
    file = jsonl(tmp_path / "prompts.jsonl", *prompts)
    where = ("--rules", rules, "--artefact", artefact)
    for command in (("query", VIRUS), ("calibrate",), ("calibrate", file, "--dry-run"), ("calibrate", file)):
        run_json(*command, *where)
        assert Artefact(artefact).current() == built
    assert run_json("calibrate", *where)["in_force"]["origin"] == "calibrated"


def test_a_first_query_of_other_rules_keeps_serving_the_packaged_ones(rules: Path, artefact: Path) -> None:
    (artefact / "artefact.json").unlink()
    assert (
        run_json("query", VIRUS, "--rules", rules, "--artefact", artefact)["rulebook"]["name"] == "test-rules"
    )
    assert run_json("query", VIRUS, "--artefact", artefact)["rulebook"]["name"] == "ascl-core"


def test_a_check_with_another_encoder_keeps_the_served_index(rules: Path, artefact: Path) -> None:
    from rule_server import load_rulebook
    from rule_server.retrieval.versions import index_for
    from tests.fakes.rules.toy_service import ToyEncoder

    assert cli("build", "--rules", rules, "--artefact", artefact).returncode == 0
    assert index_for(load_rulebook(rules), Artefact(artefact), ToyEncoder()).fingerprint == "toy"
    assert run_json("query", VIRUS, "--artefact", artefact)["rulebook"]["name"] == "test-rules"


def test_init_overwrites_nothing(rules: Path) -> None:
    assert "is not empty: specify a new folder" in refused(cli("init", rules), 2)
    assert "'A B' is not a rulebook name" in refused(cli("init", rules / "x", "--name", "A B"), 2)


def test_lint_reports_the_checks_that_it_skips_without_an_encoder(tmp_path: Path, artefact: Path) -> None:
    queries = ["bake bread", "bread dough", "rye bread", "bread oven", "sourdough bread"]
    rules = write_rulebook(
        tmp_path / "rules",
        rule("home.bread", stance="answer", title="Bread", applies_when="Bread is baked.", queries=queries),
        rule("home.bikes", stance="answer", title="Bicycles", queries=["baking bread", *"abcd"]),
    )
    without = cli("lint", "--rules", rules, "--artefact", tmp_path / "none")
    assert (without.returncode, without.stdout) == (0, "2 rules in 1 categories, 0 problems\n")
    [message] = without.stderr.splitlines()
    assert message.startswith(
        "ascl-rules: skipped: the checks that each rule matches its own example queries"
    )
    before = Artefact(artefact).current()
    report = run_json("lint", "--rules", rules, "--artefact", artefact, code=1)
    assert set(report) == {"ok", "rules", "categories", "problems"}
    assert report["ok"] is False
    assert "its own query 'baking bread' finds home.bread first" in str(report["problems"])
    assert Artefact(artefact).current() == before


def test_lint_against_an_earlier_rulebook_checks_its_ids(tmp_path: Path, rules: Path) -> None:
    later = write_rulebook(tmp_path / "later", rule("cyber.repair", stance="answer"))
    report = run_json(
        "lint", "--rules", later, "--against", str(rules), "--artefact", tmp_path / "none", code=1
    )
    assert [problem["rule"] for problem in report["problems"]] == ["cyber/malware.md", "kitchen/knives.md"]


def test_a_revision_of_several_rules_folders_is_refused_in_one_sentence(tmp_path: Path, rules: Path) -> None:
    mine = write_rulebook(tmp_path / "mine", rule("cyber.mine", stance="answer"))
    both = ("--rules", rules, "--rules", mine)
    done = cli("lint", *both, "--against", "HEAD", "--artefact", tmp_path / "none")
    assert done.returncode == 1
    assert "can be looked up in one rules folder only, and several are set" in done.stderr


def test_diff_lists_changed_rules_and_the_questions_that_they_affect(
    tmp_path: Path, rules: Path, artefact: Path
) -> None:
    later = write_rulebook(
        tmp_path / "later",
        rule("cyber.malware", title="Malicious software", status="retired"),
        rule("cyber.repair", stance="answer", title="Repairing computers", not_when=None),
        rule("kitchen.knives", stance="answer", title="Kitchen knives", not_when=None),
    )
    file = jsonl(tmp_path / "q.jsonl", {"situation": VIRUS, "kind": "harmful"}, {"prompt": BREAD}, b"{")
    before = Artefact(artefact).current()
    both = ("diff", rules, later, "--questions", file, "--artefact", artefact)
    report = run_json(*both)
    assert report["same"] is False
    assert [change["id"] for change in report["rules"]["changed"]] == ["cyber.malware"]
    [change] = report["questions"]["changed"]
    assert (change["question"], change["kind"], change["line"]) == (VIRUS, "harmful", 1)
    assert change["before"]["rules"][0] == "cyber.malware"
    assert "cyber.malware" not in change["after"]["rules"]
    assert (report["questions"]["asked"], len(report["questions"]["bad_lines"])) == (2, 1)
    table = cli(*both)
    assert "~  cyber.malware  status active -> retired" in table.stdout
    assert "1 of 2 questions would match different rules" in table.stdout
    assert "q.jsonl line 3: it is not JSON" in table.stderr
    assert Artefact(artefact).current() == before
    assert "identical" in cli("diff", rules, rules, "--artefact", artefact).stdout


def test_stats_counts_rows_and_replays_those_without_rules(
    tmp_path: Path, rules: Path, artefact: Path
) -> None:
    file = jsonl(
        tmp_path / "c.jsonl",
        {"situation": "a knife", "rules": [{"id": "kitchen.knives"}], "kind": "benign_plain"},
        {"situation": VIRUS, "kind": "harmful"},
        {"situation": "translate good morning into French"},
        b"torn",
    )
    where = ("--rules", rules, "--artefact", artefact)
    report = run_json("stats", file, *where)
    assert (report["consultations"], report["replayed"], report["no_applicable_rule"]) == (3, 2, 1)
    assert {entry["id"]: entry["consulted"] for entry in report["rules"]} == {
        "cyber.malware": 1,
        "cyber.repair": 1,
        "kitchen.knives": 1,
    }
    assert report["unanswered"] == [{"question": "translate good morning into French", "times": 1}]
    assert [line["line"] for line in report["bad_lines"]] == [4]
    table = cli("stats", file, *where)
    assert table.stdout.startswith("3 consultations (2 queried again), 1 matched no rule; test-rules 1.0.0 ")
    assert "never returned: 0 of 3 rules" in table.stdout


def test_stats_says_how_many_questions_were_in_a_language_that_is_not_searched(
    tmp_path: Path, rules: Path, artefact: Path
) -> None:
    file = jsonl(
        tmp_path / "c.jsonl",
        {"situation": SWAHILI},
        {"prompt": SWAHILI, "verdict": "no_applicable_rule", "reason": "unsupported_language"},
        {"prompt": BREAD, "verdict": "no_applicable_rule"},
    )
    where = ("--rules", rules, "--artefact", artefact)
    report = run_json("stats", file, *where)
    assert (report["no_applicable_rule"], report["unsupported_language"]) == (3, 2)
    line = "2 of them are in a language in which rules cannot be searched"
    assert line in cli("stats", file, *where).stdout.splitlines()


def test_stats_of_rows_with_rules_needs_no_encoder(tmp_path: Path, rules: Path) -> None:
    file = jsonl(tmp_path / "c.jsonl", {"prompt": "x", "rules": ["cyber.malware", "cyber.gone"]})
    report = run_json("stats", file, "--rules", rules, "--artefact", tmp_path / "none")
    assert report["never"] == ["cyber.repair", "kitchen.knives"]
    assert report["unknown"] == {"cyber.gone": 1}


def test_owners_are_listed_with_their_overdue_reviews(tmp_path: Path) -> None:
    rules = write_rulebook(
        tmp_path / "rules",
        rule("cyber.a", stance="answer", owner="ann", review_by="2020-01-01"),
        rule("cyber.b", owner="ann"),
        rule("cyber.c", owner="bob", review_by=str(datetime.datetime.now(datetime.UTC).date())),
        rule("cyber.d", owner="eve", review_by="2020-01-01", status="retired"),
    )
    assert run_json("owners", "--rules", rules)[0] == {
        "owner": "ann",
        "rules": 2,
        "overdue": 1,
        "next_review": "2020-01-01",
    }
    late = cli("owners", "--rules", rules, "--overdue").stdout.splitlines()
    assert [line.split() for line in late] == [
        ["id", "lang", "owner", "review_by"],
        ["cyber.a", "ann", "2020-01-01"],
    ]


def test_rollback_serves_an_earlier_rulebook_until_the_next_build(rules: Path, artefact: Path) -> None:
    def build() -> str:
        assert cli("build", "--rules", rules, "--artefact", artefact).returncode == 0
        current = Artefact(artefact).current()
        assert current is not None
        return current.rulebook

    def served() -> str:
        found = run_json("query", VIRUS, "--artefact", artefact)
        return str(found["rulebook"]["digest"])

    first = build()
    write_rulebook(rules, rule("cyber.malware", body=prose("New words.", "x", "y")))
    second = build()
    assert served() == second != first
    listed = {entry["digest"]: entry for entry in run_json("rollback", "--artefact", artefact)}
    assert (listed[first]["published"], listed[first]["current"]) == (True, False)
    back = cli("rollback", first[:10], "--artefact", artefact, ASCL_RULES_DIR=str(rules))
    assert f"test-rules 1.0.0 {first[:12]} is now current" in back.stdout
    assert "a service with a rules folder keeps serving that folder" in back.stderr
    assert "ASCL_RULES_DIR is set, so `serve` would use that rules folder instead" in back.stderr
    assert served() == first
    assert build() == served() == second


def test_a_rollback_to_the_packaged_rules_is_not_undone_by_serving(artefact: Path) -> None:
    current = Artefact(artefact).current()
    assert current is not None
    assert current.own_rules
    run_json("rollback", current.rulebook, "--artefact", artefact)
    after = Artefact(artefact).current()
    assert after is not None
    assert (after.rulebook, after.own_rules) == (current.rulebook, False)


@pytest.mark.parametrize("digest", ["0" * 12, "abc", "../../etc"])
def test_a_rollback_to_an_unknown_digest_lists_the_stored_ones(artefact: Path, digest: str) -> None:
    current = Artefact(artefact).current()
    assert current is not None
    message = refused(cli("rollback", digest, "--artefact", artefact), 1)
    assert "has no rulebook" in message
    assert current.rulebook[:12] in message


def test_edits_do_not_evict_published_rulebooks(tmp_path: Path, rules: Path, artefact: Path) -> None:
    from rule_server import RuleIndex, load_rulebook

    assert cli("build", "--rules", rules, "--artefact", artefact).returncode == 0
    store = Artefact(artefact)
    published = store.current()
    assert published is not None
    encoder = store.encoder(published.encoder, threads=2)
    index = store.index(published.rulebook, published.encoder)
    assert index is not None
    for edit in range(12):
        write_rulebook(rules, rule("cyber.malware", body=prose(f"Edit {edit}.", "x", "y")))
        book = load_rulebook(rules)
        store.save(RuleIndex.build(book, encoder, index.vectors_by_text()), own_rules=False)
    kept = {path.name for path in (artefact / "rulebooks").iterdir()}
    assert published.rulebook in kept
    assert len(kept) == 12  # ten edits, this one, and the one that the fixture published


def test_a_revision_compared_with_a_folder_is_of_that_folder(tmp_path: Path) -> None:
    rules = write_rulebook(tmp_path / "repo" / "rules", rule("cyber.a", stance="answer"))
    commit(rules)
    write_rulebook(rules, rule("cyber.b"))
    report = run_json("diff", "HEAD", rules, "--artefact", tmp_path / "none")
    assert [entry["id"] for entry in report["rules"]["added"]] == ["cyber.b"]
    assert report["a"]["spec"] == "HEAD"
    assert "questions" not in report


def test_the_packaged_rulebook_lints_without_a_problem_including_the_search_checks(
    artefact: Path,
) -> None:
    done = cli("lint", "--json", "--artefact", artefact)
    assert json.loads(done.stdout)["problems"] == []
    assert done.stderr == ""


def test_another_rulebook_is_queried_with_the_last_measured_threshold(
    tmp_path: Path, rules: Path, artefact: Path
) -> None:
    from rule_server.retrieval import Calibration, scoring_version

    store = Artefact(artefact)
    current = store.current()
    assert current is not None
    unreachable = Calibration(1.9, "by hand", current.rulebook, scoring_version(), 1, {})
    store.save_calibration(current.rulebook, unreachable)
    file = jsonl(tmp_path / "c.jsonl", {"situation": VIRUS})
    report = run_json("stats", file, "--rules", rules, "--artefact", artefact)
    assert (report["consultations"], report["no_applicable_rule"]) == (1, 1)
