"""Diffs of rulebooks from folders, stored digests and git revisions."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from rule_server import RulebookError, RuleServiceError, Settings, load_rulebook
from rule_server.authoring import diff_rulebooks
from rule_server.authoring.sources import open_source
from rule_server.retrieval.artefact import Artefact
from rule_server.retrieval.build import load_or_build
from tests.fakes.rules.rulebooks import prose, rule, write_rulebook


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return write_rulebook(
        tmp_path / "repo" / "rules", rule("cyber.a", stance="answer"), rule("cyber.b"), rule("garden.c")
    )


def git(at: Path, *arguments: str) -> None:
    config = ("-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "init.defaultBranch=main")
    subprocess.run(["git", *config, *arguments], cwd=at, check=True, capture_output=True, timeout=60)


def commit(old: Path) -> Path:
    """Commits the folder `rules` and returns its repository."""
    git(old.parent, "init", "-q")
    git(old.parent, "add", ".")
    git(old.parent, "commit", "-q", "-m", "rules")
    return old.parent


def open_here(spec: str, old: Path, tmp_path: Path) -> str:
    """Returns kind and digest of the source that a name stands for."""
    source = open_source(spec, Artefact(tmp_path / "artefact"), old)
    return f"{source.kind} {source.rulebook.digest}"


def test_a_diff_lists_added_removed_and_changed_rules(old: Path) -> None:
    before = load_rulebook(old)
    write_rulebook(
        old,
        rule("cyber.a", stance="limit", body=prose("Explaining a.", "Other words.", "Speak plainly of a.")),
        rule("cyber.b", status="retired"),
        rule("cyber.d", title="New"),
        rule("cyber.a", lang="de"),
    )
    (old / "garden" / "c.md").unlink()
    (old / "garden" / "_category.md").unlink()
    (old / "garden").rmdir()
    difference = diff_rulebooks(before, load_rulebook(old))
    assert difference.lines() == [
        ("-", "garden/", "category removed"),
        ("+", "cyber.a (de)", "decline, active: A"),
        ("+", "cyber.d", "decline, active: New"),
        ("-", "garden.c", "decline, active: C"),
        ("~", "cyber.a", "stance answer -> limit, not_fine"),
        ("~", "cyber.b", "status active -> retired"),
    ]
    assert difference.as_dict()["rules"]["changed"][0] == {
        "id": "cyber.a",
        "title": "A",
        "changed": ["stance", "not_fine"],
        "stance": {"before": "answer", "after": "limit"},
    }
    assert diff_rulebooks(before, before).lines() == []


def test_a_revision_is_read_without_touching_the_working_tree(old: Path, tmp_path: Path) -> None:
    committed = load_rulebook(old).digest
    repository = commit(old)
    path, text = rule("cyber.a", stance="limit")
    (old / path).write_text(text, encoding="utf-8")
    assert open_here("HEAD", old, tmp_path) == f"git {committed}"
    assert open_here(str(old), old, tmp_path) == f"folder {load_rulebook(old).digest}"
    assert (old / path).read_text(encoding="utf-8") == text
    assert sorted(entry.name for entry in repository.iterdir()) == [".git", "rules"]


def test_a_revision_may_name_another_folder_of_the_repository(
    old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed = load_rulebook(old).digest
    monkeypatch.chdir(commit(old))
    assert open_here("HEAD:rules", tmp_path, tmp_path) == f"git {committed}"
    assert open_here("main:rules", tmp_path, tmp_path) == f"git {committed}"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "HAED",
            "HAED is neither a folder nor a digest that .* keeps, nor a revision of the git repository of",
        ),
        ("HEAD:docs", "the revision HEAD has no folder docs: name the rules folder, as in HEAD:rules"),
        ("--output=x", "names no rulebook: write a folder, a digest or a git revision"),
        ("HEAD^{tree};x", "nor a revision of the git repository"),
        ("", "names no rulebook"),
    ],
)
def test_an_unknown_source_is_refused_in_one_sentence(
    old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, message: str
) -> None:
    monkeypatch.chdir(commit(old))
    with pytest.raises(RulebookError, match=message) as raised:
        open_here(spec, old, tmp_path)
    assert "\n" not in str(raised.value)


def test_a_revision_outside_a_repository_is_refused(old: Path, tmp_path: Path) -> None:
    with pytest.raises(RulebookError, match="is not in a git repository; write HEAD:rules inside one"):
        open_here("HEAD", old, tmp_path)


def test_a_repository_of_another_user_is_refused_with_the_fix(
    old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(old)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(RulebookError, match=r"git does not trust .*safe\.directory"):
        open_here("HEAD", old, tmp_path)


def test_without_git_a_revision_is_refused(
    old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RulebookError, match="git is not installed"):
        open_here("HEAD", old, tmp_path)


def test_a_link_in_a_revision_is_refused(old: Path, tmp_path: Path) -> None:
    (old / "cyber" / "passwords.md").symlink_to("/etc/passwd")
    commit(old)
    with pytest.raises(RulebookError, match=r"HEAD: cyber/passwords\.md is a link"):
        open_here("HEAD", old, tmp_path)


def test_a_fault_in_a_revision_is_reported_with_its_name(old: Path, tmp_path: Path) -> None:
    (old / "cyber" / "a.md").write_text("no rule", encoding="utf-8")
    commit(old)
    with pytest.raises(RulebookError, match=r"HEAD/cyber/a\.md: the first line is not `---`"):
        open_here("HEAD", old, tmp_path)


def test_a_stored_rulebook_is_found_by_the_beginning_of_its_digest(rules: Path, settings: Settings) -> None:
    digest = load_or_build(settings, notify=lambda _: None, build=True).index.rulebook.digest
    artefact = Artefact(settings.artefact)
    for spec in (digest, digest[:8], digest[:12].upper()):
        source = open_source(spec, artefact, rules)
        assert (source.kind, source.rulebook.digest) == ("digest", digest)
    with pytest.raises(RuleServiceError, match="keeps no rulebook 000000000000: build it again"):
        open_source("0" * 64, artefact, rules)
    file = settings.artefact / "rulebooks" / digest / "rulebook.json"
    file.write_text(file.read_text(encoding="utf-8").replace("virus", "worm"), encoding="utf-8")
    with pytest.raises(RuleServiceError, match="is not what was written"):
        open_source(digest, artefact, rules)
