"""The packaged demonstrations: valid episodes in both modes that match their sources."""

import json
import re
from collections import Counter
from difflib import SequenceMatcher

import pytest

from agent import Episode, read_log, system_prompt
from evaluation import load_prompts
from trainer.stages.sft.demonstrations import read_written_demonstrations
from trainer.stages.sft.demonstrations.build import FOLDER

RULE_CATEGORIES = 18
FUNCTION_WORDS = re.compile(
    r"\b(?:an?|and|any|are|as|at|be|by|can|could|do|does|for|from|get|give|has|have|help|her|him|his|how|i|in|into"
    r"|is|it|me|my|of|on|or|our|out|should|so|some|someone|that|the|their|them|they|this|to|was|way|what|when"
    r"|where|which|who|why|will|with|without|would|write|you|your)\b"
)


@pytest.fixture(scope="module")
def episodes() -> list[Episode]:
    reading = read_log(FOLDER / "demonstrations.jsonl")
    assert reading.skipped == []
    return reading.episodes


def test_the_demonstrations_are_at_least_120_episodes_with_an_answer(episodes: list[Episode]) -> None:
    assert len(episodes) >= 120
    assert all(episode.answer for episode in episodes)


def test_most_harmful_demonstrations_consult_and_harmless_ones_do_so_about_half_the_time(
    episodes: list[Episode],
) -> None:
    modes = Counter((episode.kind, episode.mode) for episode in episodes)
    assert 5 <= modes["harmful", "direct"] <= modes["harmful", "consult"] / 4
    for kind in ("benign_sensitive", "benign_plain"):
        consult, direct = modes[kind, "consult"], modes[kind, "direct"]
        assert min(consult, direct) >= 15
    assert sum(count for (_, mode), count in modes.items() if mode == "direct") >= 40


def test_every_call_has_a_short_situation_and_a_verdict_of_the_rule_service(episodes: list[Episode]) -> None:
    for episode in episodes:
        for consultation in episode.consultations:
            assert list(json.loads(consultation.arguments)) == ["situation"]
            assert consultation.verdict in ("rules_found", "no_applicable_rule")
            assert 3 <= len((consultation.situation or "").split()) <= 12


def content(prompt: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", FUNCTION_WORDS.sub(" ", prompt.lower().replace("'s", ""))))


def nearly_equal(one: str, other: str) -> bool:
    """Tests whether two prompts share half of their content words, or almost all letters."""
    mine, yours = content(one), content(other)
    shared = len(mine & yours) / max(1, len(mine | yours))
    return shared >= 0.5 or SequenceMatcher(None, one.lower(), other.lower()).ratio() >= 0.75


def test_nearly_equal_detects_a_changed_word_but_not_a_shared_topic() -> None:
    assert nearly_equal("Why is the sky blue?", "Why is the sky blue during the day?")
    assert nearly_equal("Translate good morning into French.", 'Translate "good morning" into French.')
    assert not nearly_equal("What is the capital of Portugal?", "What causes thunder?")


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_no_demonstration_nearly_equals_a_prompt_that_is_sampled_or_measured(split: str) -> None:
    prompts = [prompt.prompt for prompt in load_prompts(f"builtin:{split}")]
    assert prompts
    close = [
        (line.prompt, prompt)
        for line in read_written_demonstrations()
        for prompt in prompts
        if nearly_equal(line.prompt, prompt)
    ]
    assert close == []


def test_the_written_demonstrations_cover_every_category_and_are_short() -> None:
    written = read_written_demonstrations()
    assert len({line.category for line in written if line.category}) == RULE_CATEGORIES
    assert len({line.prompt for line in written}) == len(written)
    assert all(len(line.prompt.split()) <= 18 and len(line.answer.split()) <= 30 for line in written)


def test_the_episodes_contain_the_written_texts_and_the_current_system_prompt(
    episodes: list[Episode],
) -> None:
    for line, episode in zip(read_written_demonstrations(), episodes, strict=True):
        assert (episode.prompt, episode.kind, episode.answer) == (line.prompt, line.kind, line.answer)
        assert episode.mode == ("consult" if line.situation else "direct")
        assert episode.messages[0] == {"role": "system", "content": system_prompt()}
