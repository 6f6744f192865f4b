"""Loading rule files: accepted and refused input, error messages, and the digest."""

from __future__ import annotations

import contextlib
import datetime
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rule_server import RulebookError, load_rulebook
from rule_server.rulebook.front_matter import FrontMatterError, split_front_matter
from rule_server.rulebook.loader import MAX_FILE_BYTES, read_rulebook
from tests.fakes.rules.rulebooks import prose, rule, write_rulebook

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_rulebook(
        tmp_path / "rules", rule("cyber.malware"), rule("cyber.repair", stance="answer", not_when=None)
    )


def problems(folder: Path) -> list[str]:
    _, found = read_rulebook(folder)
    return [str(problem) for problem in found]


def test_the_packaged_rulebook_has_18_categories_with_answers_and_at_least_45_rules() -> None:
    book = load_rulebook(ROOT / "rules")
    assert len(book.categories) == 18
    assert len(book.served) >= 45
    assert {rule.category for rule in book.served.values() if rule.stance == "answer"} == {
        category.id for category in book.categories
    }
    assert sum(rule.category == "benign-lookalikes" for rule in book.served.values()) >= 11


def test_a_rule_is_read_with_its_three_sections(folder: Path) -> None:
    found = load_rulebook(folder).served["cyber.malware"]
    assert (found.category, found.stance, found.priority) == ("cyber", "decline", 50)
    assert found.text == (
        "Fine: Explaining malware.\nNot fine: Doing malware.\nHow to answer: Speak plainly of malware."
    )


def test_words_change_the_digest_but_formatting_does_not(folder: Path) -> None:
    before = load_rulebook(folder).digest
    file = folder / "cyber" / "malware.md"
    text = file.read_text(encoding="utf-8")
    file.write_text(
        "\ufeff" + text.replace("\n", "\r\n").replace("Doing malware.", "Doing\r\nmalware.  "), "utf-8"
    )
    (folder / "cyber" / "malware.md.swp~").write_bytes(b"\xff")
    assert load_rulebook(folder).digest == before
    file.write_text(text.replace("Doing malware.", "Doing any malware."), encoding="utf-8")
    assert load_rulebook(folder).digest != before


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (rule(stanse="decline"), "unknown key `stanse`; remove it or correct its spelling"),
        (rule(owner=None), "`owner` is missing; add it to the front matter"),
        (rule(stance="forbid"), "`stance` cannot be 'forbid'"),
        (rule(priority="50"), "`priority` cannot be '50'"),
        (rule(title=True), "quote it"),
        (rule(not_when=None), "`not_when` is missing; say what looks like this and is not"),
        (rule(queries=["one", "two"]), "`queries` cannot be"),
        (rule(review_by="2026-02-30"), "`review_by` cannot be '2026-02-30'"),
        (rule(title="in\u200bvisible"), "invisible control character"),
        (rule(body=prose("a" * 10, "b", "Ask {{hotline}}.")), "the variable 'hotline' has no value"),
        (rule(body="## Fine\n\nx\n\n## Not fine\n\ny\n"), "its headings are Fine, Not fine; use each of"),
        (rule(body="Hello.\n\n" + prose("a", "b", "c")), "text before the first heading"),
        (rule(body=prose("word " * 130, "b", "c")), "its prose has 132 words; shorten it to 120"),
        (rule(body=prose("<b>\x07</b>", "b", "c")), "invisible control character"),
        (("cyber/malware.md", "no front matter"), "the first line is not `---`"),
        (("cyber/malware.md", "---\nid: [\n---\n"), "the YAML cannot be read in line"),
        (("cyber/malware.md", "---\nid: a\n"), "is not closed by a line `---`"),
        (("cyber/malware.md", "---\na: &x 1\nb: *x\n---\n"), "an alias is not allowed"),
        (("cyber/malware.md", "---\nid: a\nid: b\n---\n"), "the key `id` occurs twice"),
        (("cyber/malware.md", "---\n- a\n---\n"), "not a list of `key: value` lines"),
        (("cyber/malware.md", "---\na: !!python/object/apply:os.system [id]\n---\n"), "a tag is not allowed"),
        (("cyber/malware.md", f"---\na: {'[' * 5000}\n---\n"), "the YAML cannot be read"),
        (("cyber/malware.md", "x" * (MAX_FILE_BYTES + 1)), "larger than 64 KiB; shorten it or split it"),
        (("cyber/other-name.md", rule()[1]), "`id` is 'cyber.malware'; write cyber.other-name"),
        (("cyber/notes.txt", "hello"), "it is not where a rule belongs"),
        (rule(lang="german-"), "'german-' in its name is not a language"),
    ],
)
def test_an_invalid_file_is_named_with_its_problem_and_fix(
    tmp_path: Path, bad: tuple[str, str], said: str
) -> None:
    folder = write_rulebook(tmp_path / "rules", rule("cyber.repair", stance="answer"), bad)
    [found] = problems(folder)
    assert found.startswith(f"{bad[0]}: ")
    assert said in found
    with pytest.raises(RulebookError) as raised:
        load_rulebook(folder)
    assert "\n" not in str(raised.value)


def test_all_problems_of_a_folder_are_reported_together(tmp_path: Path) -> None:
    folder = write_rulebook(
        tmp_path / "rules", rule("cyber.malware", owner=None, status="on"), rule("cyber.repair", title="")
    )
    (folder / "rulebook.yaml").unlink()
    (folder / "cyber" / "_category.md").unlink()
    said = "\n".join(problems(folder))
    for part in (
        "rulebook.yaml: the file is missing",
        "_category.md: the file is missing",
        "owner",
        "status",
        "title",
    ):
        assert part in said
    with pytest.raises(RulebookError, match=r"and \d more: see `ascl-rules lint`"):
        load_rulebook(folder)


STRAY = [
    "cyber/#malware.md#",
    "cyber/.#malware.md",
    "cyber/malware.md~",
    "cyber/malware.md.orig",
    "cyber/malware.md.rej",
    "cyber/malware.md.bak",
    "cyber/.malware.md.swp",
    "cyber/malware.md.swp",
    "cyber/malware.md___jb_tmp___",
    "cyber/malware.md.sb-1a2b3c4d-Xy",
    "cyber/Thumbs.db",
    "cyber/.DS_Store",
    "cyber/desktop.ini",
    "cyber/__pycache__/x.pyc",
    "__MACOSX/cyber/._malware.md",
    "#notes.md#",
    "LICENSE.md",
    "license",
    "Readme.md",
    "README.de.md",
    "CODE_OF_CONDUCT.md",
    "CONTRIBUTING.md",
    "docs/guide.md",
    "tests/check.py",
    "notes.txt",
]


@pytest.mark.parametrize("stray", STRAY)
def test_a_stray_file_keeps_the_rulebook_and_its_digest(folder: Path, stray: str) -> None:
    before = load_rulebook(folder).digest
    file = folder / stray
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"\xff not a rule")
    assert load_rulebook(folder).digest == before


def test_a_dangling_lock_link_of_an_editor_is_ignored(folder: Path) -> None:
    (folder / "cyber" / ".#malware.md").symlink_to("ann@host.123:456")
    (folder / "LICENSE.md").symlink_to("../LICENSE.md")
    assert problems(folder) == []


def test_a_folder_named_docs_is_a_category_if_it_is_declared_as_one(tmp_path: Path) -> None:
    base = write_rulebook(tmp_path / "base", rule("docs.leaks", stance="answer"))
    top = tmp_path / "top"
    (top / "docs").mkdir(parents=True)
    (top / "rulebook.yaml").write_text("name: top\nversion: 0.1.0\n", encoding="utf-8")
    (top / "docs" / "more.md").write_text(rule("docs.more", stance="answer")[1], encoding="utf-8")
    assert set(load_rulebook((base, top)).served) == {"docs.leaks", "docs.more"}


def test_a_folder_of_rules_without_category_file_is_a_problem_under_any_name(tmp_path: Path) -> None:
    folder = write_rulebook(tmp_path / "rules", rule("tools.axe", stance="answer"))
    (folder / "tools" / "_category.md").unlink()
    assert problems(folder)[0].startswith("tools/_category.md: the file is missing")


def test_what_is_ignored_is_logged_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "docs").mkdir()
    (folder / "cyber" / "malware.md.orig").write_text("", encoding="utf-8")
    (folder / ".git").mkdir()
    (folder.rename(folder.with_name("once")) / "README.md").write_text("", encoding="utf-8")
    with caplog.at_level("INFO"):
        for _ in range(3):
            load_rulebook(folder.with_name("once"))
    assert [record.getMessage() for record in caplog.records] == [
        "not part of the rulebook by their names: once/cyber/malware.md.orig, once/docs"
    ]


def test_a_symbolic_link_is_never_followed(folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.md"
    secret.write_text(rule("cyber.secret")[1], encoding="utf-8")
    (folder / "cyber" / "secret.md").symlink_to(secret)
    (folder / "outside").symlink_to(tmp_path)
    assert sorted(problems(folder)) == [
        "cyber/secret.md: it is a symbolic link; put the file itself here",
        "outside: it is a symbolic link; put the file itself here",
    ]


def test_a_pipe_in_the_folder_does_not_hang_the_loader(folder: Path) -> None:
    os.mkfifo(folder / "cyber" / "pipe.md")
    [found] = problems(folder)
    assert found.startswith("cyber/pipe.md: it is not where a rule belongs; rules are files")


def test_a_translation_belongs_to_its_rule_and_changes_the_digest(folder: Path) -> None:
    before = load_rulebook(folder).digest
    path, text = rule("cyber.malware", lang="de", title="Schadsoftware")
    (folder / path).write_text(text, encoding="utf-8")
    book = load_rulebook(folder)
    assert book.translations["cyber.malware", "de"].title == "Schadsoftware"
    assert list(book.served) == ["cyber.malware", "cyber.repair"]
    assert book.digest != before
    (folder / "cyber" / "malware.md").unlink()
    assert "it translates no rule" in problems(folder)[0]


def test_variables_are_filled_in_the_text_that_a_model_reads(tmp_path: Path) -> None:
    body = prose("a", "b", "Name {{crisis_line}}.")
    folder = write_rulebook(tmp_path / "rules", rule("help.line", stance="answer", body=body))
    assert (
        load_rulebook(folder, {"crisis_line": "116 123"}).served["help.line"].how_to_answer == "Name 116 123."
    )


def test_drafts_and_retired_rules_are_read_but_not_served(tmp_path: Path) -> None:
    folder = write_rulebook(
        tmp_path / "rules",
        rule("cyber.a", status="draft"),
        rule("cyber.b", status="retired"),
        rule("cyber.c"),
    )
    book = load_rulebook(folder)
    assert len(book.rules) == 3
    assert list(book.served) == ["cyber.c"]


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RulebookError, match="is not a folder: specify the rules folder with --rules"):
        load_rulebook(tmp_path / "nowhere")


YAMLISH = st.text(alphabet=st.sampled_from(list("ab:-[]{}&*!|>'\"#%@\n\t ,?\u2028\x00é🙂0.")), max_size=300)
SOON = datetime.timedelta(seconds=20)
"""Limit for one input. It takes milliseconds, or hours if nesting or aliases multiply."""


@given(YAMLISH | st.text(max_size=300))
def test_any_text_is_parsed_or_refused_in_one_sentence(text: str) -> None:
    with contextlib.suppress(FrontMatterError):
        front, _ = split_front_matter(f"---\n{text}\n---\nbody")
        assert all(isinstance(key, str) for key in front)


@pytest.mark.parametrize(
    "value",
    [
        "!!int ''",
        "!!bool maybe",
        "!!timestamp never",
        "!!float ''",
        "! x",
        ":".join(["1"] * 300) + ".0",
        "9" * 5000,
        "0x" + "f" * 5000,
        "0001-01-01 00:00:00 +23:59",
        "2026-13-45",
        "{? [a] : b}",
        "{<<: 5}",
        "{<<: [{a: 1}, 2]}",
        "{=: 1}",
        "\ud800",
    ],
)
def test_a_value_that_breaks_yaml_parsers_is_refused_or_read(folder: Path, value: str) -> None:
    path, text = rule("cyber.malware")
    changed = text.replace("priority: 50", f"priority: {value}")
    (folder / path).write_bytes(changed.encode("utf-8", "surrogatepass"))
    book, found = read_rulebook(folder)
    assert book is None
    assert [problem.rule for problem in found] == [path]
    assert str(found[0]).isprintable()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=SOON)
@given(
    content=st.binary(max_size=2000) | st.text(max_size=500).map(lambda text: f"---\n{text}\n---\n".encode())
)
def test_any_bytes_in_a_rule_file_are_a_problem_and_never_a_crash(folder: Path, content: bytes) -> None:
    (folder / "cyber" / "malware.md").write_bytes(content)
    book, found = read_rulebook(folder)
    assert (book is None) == bool(found)
    assert all(str(problem).isprintable() for problem in found)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=SOON)
@given(
    piece=st.sampled_from(
        ["[", "{a: ", "- ", "? ", "&a [*a, ", "!!set {", "a: &b ", "'", '"\\x', "|\n ", "1:"]
    )
    | st.text(min_size=1, max_size=6),
    times=st.integers(1, 70_000),
    file=st.sampled_from(["cyber/malware.md", "cyber/_category.md", "rulebook.yaml"]),
)
def test_deep_long_and_aliased_yaml_is_cheap_to_reject(
    folder: Path, piece: str, times: int, file: str
) -> None:
    inside = f"a: {piece * times}"[:MAX_FILE_BYTES]
    text = inside if file.endswith(".yaml") else f"---\n{inside}\n---\n"
    (folder / file).write_text(text, encoding="utf-8", errors="replace")
    book, found = read_rulebook(folder)
    assert book is None
    assert found
    assert all(len(str(problem)) < 1500 for problem in found)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=SOON)
@given(
    encoding=st.sampled_from(
        ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "cp500", "utf-7"]
    ),
    title=st.text(st.characters(codec="utf-8"), min_size=1, max_size=30),
)
def test_another_encoding_is_reported_and_not_guessed(folder: Path, encoding: str, title: str) -> None:
    path, text = rule("cyber.malware", title=title)
    (folder / path).write_bytes(text.encode(encoding, "replace"))
    book, found = read_rulebook(folder)
    assert (book is None) == bool(found)
    if encoding.startswith(("utf-16", "utf-32", "cp")):
        assert book is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=SOON)
@given(
    at=st.sampled_from(
        ["cyber/malware.md", "cyber/_category.md", "rulebook.yaml", "cyber/x.de.md", "cyber", "more"]
    ),
    to=st.sampled_from(["secret.md", "secret", "/dev/zero", "/etc/passwd", ".", "nowhere", "rules"]),
)
def test_a_symbolic_link_is_refused_everywhere(tmp_path: Path, at: str, to: str) -> None:
    shutil.rmtree(tmp_path / "rules", ignore_errors=True)
    folder = write_rulebook(tmp_path / "rules", rule("cyber.malware", stance="answer"))
    outside = write_rulebook(
        tmp_path / "secret", rule("cyber.secret", title="Not to be read", stance="answer")
    )
    shutil.copy(outside / "cyber" / "secret.md", tmp_path / "secret.md")
    link = folder / at
    if link.is_dir():
        shutil.rmtree(link)
    link.unlink(missing_ok=True)
    link.symlink_to(tmp_path / to)
    book, found = read_rulebook(folder)
    assert book is None
    assert "Not to be read" not in str(found)
    assert "cyber.secret" not in str(found)


def test_pipes_and_folders_in_place_of_files_do_not_hang_the_loader(folder: Path) -> None:
    for name in ("rulebook.yaml", "cyber/_category.md", "cyber/repair.md"):
        (folder / name).unlink()
        os.mkfifo(folder / name)
    (folder / "cyber" / "malware.md").unlink()
    (folder / "cyber" / "malware.md").mkdir()
    assert {line.partition(":")[0] for line in problems(folder)} == {
        "rulebook.yaml",
        "cyber/_category.md",
        "cyber/malware.md",
        "cyber/repair.md",
    }


def test_control_characters_in_file_names_are_replaced(folder: Path) -> None:
    (folder / "cyber" / "a\x1b[2J\nb.md").write_text("x", encoding="utf-8")
    os.close(os.open(os.fsencode(folder / "cyber") + b"/\xff\xfe.md", os.O_CREAT | os.O_WRONLY))
    found = problems(folder)
    assert len(found) == 2
    assert all(line.isprintable() for line in found)


def test_a_rulebook_of_too_many_bytes_is_refused_early(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rule_server.rulebook.loader.MAX_RULEBOOK_BYTES", 1000)
    assert any("a rulebook holds at most" in line for line in problems(folder))


def test_the_same_problem_in_many_files_is_reported_for_each(tmp_path: Path) -> None:
    files = [rule(f"cyber.n{number}", stanse="decline") for number in range(300)]
    found = problems(write_rulebook(tmp_path / "rules", *files))
    assert len(found) == 300
    assert all("unknown key `stanse`" in line for line in found)


def test_reading_stops_after_the_maximum_number_of_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rule_server.rulebook.loader.MAX_RULES", 10)
    monkeypatch.setattr("rule_server.rulebook.loader.MAX_CATEGORIES", 10)
    for number in range(100):
        (folder / "cyber" / f"{number}.txt").touch()
    found = problems(folder)
    assert len(found) < 30
    assert any("a rulebook holds at most 10 rules" in line for line in found)


@pytest.mark.parametrize("closed", ["cyber", "."])
def test_a_folder_that_can_be_listed_but_not_entered_is_reported(
    folder: Path, monkeypatch: pytest.MonkeyPatch, closed: str
) -> None:
    stat = Path.stat

    def guarded(path: Path, **how: bool) -> os.stat_result:
        if folder / closed in path.parents:  # the tests may run as root, whom file modes do not restrict
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, **how)

    monkeypatch.setattr(Path, "stat", guarded)
    shown = "cyber" if closed == "cyber" else "rulebook.yaml"
    assert problems(folder)[0] == f"{shown}: it cannot be read (Permission denied); make it readable"
    with pytest.raises(RulebookError, match="cannot be read"):
        load_rulebook(folder)


def test_rules_in_an_inaccessible_folder_are_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(path: Path, **_: bool) -> os.stat_result:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", closed)
    with pytest.raises(RulebookError, match="is not a folder"):
        load_rulebook(folder)
