"""Usage statistics of exported consultations, and how invalid lines are handled."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rule_server import StartError, load_rulebook
from rule_server.authoring import read_questions, summarize_usage
from rule_server.authoring.questions import MAX_LINE_BYTES
from tests.fakes.rules.rulebooks import rule, write_rulebook


def jsonl(path: Path, *rows: object) -> Path:
    path.write_bytes(
        b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)
    )
    return path


def test_rows_of_every_export_format_are_read(tmp_path: Path) -> None:
    file = jsonl(
        tmp_path / "a.jsonl",
        {"situation": "one", "prompt": "ignored", "kind": "math", "rules": ["a.b"], "digest": "ff"},
        {"prompt": "two", "rules": [{"id": "a.b", "score": 0.5}, {"id": "a.c"}], "verdict": "rules_found"},
        {"prompt": "three", "verdict": "no_applicable_rule", "other": 1},
        {"situation": None, "prompt": "four", "kind": None, "rules": None},
        b"",
    )
    questions, bad = read_questions([file])
    assert [(q.line, q.text, q.kind, q.rules, q.digest) for q in questions] == [
        (1, "one", "math", ("a.b",), "ff"),
        (2, "two", None, ("a.b", "a.c"), None),
        (3, "three", None, (), None),
        (4, "four", None, None, None),
    ]
    assert bad == []


def test_a_line_without_a_question_is_reported_and_the_rest_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    jsonl(
        file,
        b"{",
        [1],
        {"answer": "x"},
        {"prompt": "   "},
        {"prompt": 3},
        {"prompt": "x" * 4001},
        {"prompt": "x", "rules": "a.b"},
        {"prompt": "x", "rules": [{"name": "a.b"}]},
        {"prompt": "x", "verdict": "perhaps"},
        b"\xff\xfe",
        b'{"prompt": "\\ud800"}',
        b"[" * 100_000,
        b'"' + b"x" * (3 * MAX_LINE_BYTES) + b'"',
        {"prompt": "the last"},
    )
    file.write_bytes(file.read_bytes() + b'{"prompt": "to')
    questions, bad = read_questions([file])
    assert [(q.line, q.text) for q in questions] == [(14, "the last")]
    assert [line.line for line in bad] == [*range(1, 14), 15]
    assert str(bad[0]) == "a.jsonl line 1: it is not JSON"
    assert str(bad[2]) == "a.jsonl line 3: it has neither `situation` nor `prompt`"
    assert str(bad[-1]) == "a.jsonl line 15: it is not JSON (the line is torn)"
    assert all("\n" not in str(line) and len(str(line)) < 300 for line in bad)


def test_an_unreadable_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="cannot be read"):
        read_questions([tmp_path / "nowhere.jsonl"])
    with pytest.raises(StartError, match="cannot be read"):
        read_questions([tmp_path])


def test_usage_counts_rules_categories_kinds_and_unanswered_questions(tmp_path: Path) -> None:
    book = load_rulebook(
        write_rulebook(
            tmp_path / "rules", rule("cyber.a", stance="answer"), rule("cyber.b"), rule("garden.c")
        )
    )
    questions, _ = read_questions(
        [
            jsonl(
                tmp_path / "a.jsonl",
                {"prompt": "one", "kind": "harmful", "digest": book.digest},
                {"prompt": "two", "kind": "harmful", "digest": "other"},
                {"prompt": "bread", "kind": "benign_plain"},
                {"prompt": "bread "},
            )
        ]
    )
    usage = summarize_usage(book, questions, [["cyber.b", "cyber.a"], ["cyber.b", "cyber.gone"], [], []])
    assert (usage.consultations, usage.nothing) == (4, 2)
    assert usage.rules == {"cyber.a": 1, "cyber.b": 2, "garden.c": 0}
    assert usage.first == {"cyber.a": 0, "cyber.b": 2, "garden.c": 0}
    assert usage.categories == {"cyber": 2, "garden": 0}
    assert usage.never == ["garden.c"]
    assert usage.unknown == {"cyber.gone": 1}
    assert usage.kinds == {"": (1, 1), "benign_plain": (1, 1), "harmful": (2, 0)}
    assert usage.unanswered == [("bread", 2)]
    assert usage.digests == {book.digest: 1, "other": 1}
