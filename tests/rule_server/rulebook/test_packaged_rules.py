"""Invariants of the packaged rulebook."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from rule_server import load_rulebook
from rule_server.rulebook import Rule, Rulebook
from rule_server.rulebook.parser import MAX_WORDS

ROOT = Path(__file__).resolve().parents[3]
TRANSLATED = ("benign-lookalikes", "cyber", "self-harm")
CHINESE = re.compile("[\u4e00-\u9fff]")
CHINESE_PROMPTS = ROOT / "benchmarks" / "retrieval" / "multilingual" / "zh_prompts.jsonl"


@pytest.fixture(scope="module")
def rulebook() -> Rulebook:
    return load_rulebook(ROOT / "rules")


def originals(rulebook: Rulebook, category: str) -> list[Rule]:
    return [rule for rule in rulebook.served.values() if rule.category == category]


def queries_and_examples(rule: Rule) -> list[str]:
    return [*rule.queries, *rule.examples.benign, *rule.examples.harmful]


def normalise(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def test_its_stored_form_is_read_as_the_same_rulebook(rulebook: Rulebook) -> None:
    stored = rulebook.canonical().encode()
    again = Rulebook.from_canonical(stored)
    assert again == rulebook
    assert again.digest == rulebook.digest
    assert again.canonical().encode() == stored
    assert Rulebook.from_canonical(stored + b" ").digest != rulebook.digest


def test_it_has_eighteen_categories_and_at_least_110_active_rules(rulebook: Rulebook) -> None:
    assert len(rulebook.categories) == 18
    assert len(rulebook.served) >= 110


def test_every_category_has_an_answer_rule_and_at_most_five_times_as_many_prohibitions(
    rulebook: Rulebook,
) -> None:
    for category in rulebook.categories:
        stances = [rule.stance for rule in originals(rulebook, category.id)]
        assert stances.count("answer") >= 1, category.id
        assert stances.count("decline") <= 5 * stances.count("answer"), category.id


def test_all_look_alikes_but_one_are_answer_rules(rulebook: Rulebook) -> None:
    rules = originals(rulebook, "benign-lookalikes")
    assert len(rules) >= 11
    assert [rule.id for rule in rules if rule.stance != "answer"] == [
        "benign-lookalikes.safe-word-is-not-enough"
    ]


def test_every_prohibition_and_limit_has_a_not_when(rulebook: Rulebook) -> None:
    assert not [rule.id for rule in rulebook.rules if rule.stance != "answer" and not rule.not_when]


def test_every_rule_has_a_harmless_example_and_every_prohibition_a_harmful_one(
    rulebook: Rulebook,
) -> None:
    for rule in rulebook.rules:
        assert rule.examples.benign, rule.id
        if rule.stance == "decline":
            assert rule.examples.harmful, rule.id


def test_no_rule_exceeds_the_maximum_length(rulebook: Rulebook) -> None:
    for rule in rulebook.rules:
        sections = (rule.fine, rule.not_fine, rule.how_to_answer)
        assert sum(len(section.split()) for section in sections) <= MAX_WORDS, rule.id
        if rule.lang == "zh":
            assert all(len(section) <= 220 for section in sections), rule.id


def test_no_two_rules_share_a_query_or_an_example(rulebook: Rulebook) -> None:
    seen: dict[str, str] = {}
    for rule in rulebook.rules:
        for text in queries_and_examples(rule):
            assert seen.setdefault(normalise(text), rule.id) == rule.id, text


@pytest.mark.parametrize("category", TRANSLATED)
def test_three_categories_can_be_read_in_chinese(rulebook: Rulebook, category: str) -> None:
    for rule in originals(rulebook, category):
        translation = rulebook.translations[rule.id, "zh"]
        assert (translation.stance, translation.priority) == (rule.stance, rule.priority)
        for text in (translation.title, translation.text, *queries_and_examples(translation)):
            assert CHINESE.search(text), text


def test_no_rule_quotes_a_training_or_evaluation_prompt(rulebook: Rulebook) -> None:
    files = [
        *sorted((ROOT / "evaluation" / "prompts").glob("*.jsonl")),
        ROOT / "trainer" / "stages" / "sft" / "demonstrations" / "written.jsonl",
        CHINESE_PROMPTS,
    ]
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    rows = [json.loads(line) for line in lines]
    prompts = {normalise(text) for row in rows for text in row.get("user_turns") or [row["prompt"]]}
    quoted = [
        text for rule in rulebook.rules for text in queries_and_examples(rule) if normalise(text) in prompts
    ]
    assert quoted == []


def test_the_chinese_prompts_are_labelled_with_categories_of_the_rulebook(rulebook: Rulebook) -> None:
    lines = CHINESE_PROMPTS.read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    known = {category.id for category in rulebook.categories}
    assert len({row["prompt"] for row in rows}) == len({row["id"] for row in rows}) == len(rows) >= 60
    for row in rows:
        assert CHINESE.search(row["prompt"])
        assert (row["kind"] == "benign_plain") == (row["category"] is None)
        assert row["category"] is None or row["category"] in known
