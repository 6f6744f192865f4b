"""The packaged demonstrations: valid episodes in both modes, in step with what they are made of."""

import json
from collections import Counter

import pytest

from agent import Episode, read_log, system_prompt
from trainer.demonstrations.build import FOLDER, read_written

RULE_CATEGORIES = 18


@pytest.fixture(scope="module")
def episodes() -> list[Episode]:
    reading = read_log(FOLDER / "demonstrations.jsonl")
    assert reading.skipped == []
    return reading.episodes


def test_the_demonstrations_are_at_least_120_episodes_with_an_answer(episodes: list[Episode]) -> None:
    assert len(episodes) >= 120
    assert all(episode.answer for episode in episodes)


def test_harmful_prompts_are_consulted_on_and_harmless_ones_are_shown_in_both_modes(
    episodes: list[Episode],
) -> None:
    modes = Counter((episode.kind, episode.mode) for episode in episodes)
    assert modes["harmful", "direct"] == 0
    for kind in ("benign_sensitive", "benign_plain"):
        consult, direct = modes[kind, "consult"], modes[kind, "direct"]
        assert min(consult, direct) >= 15
    assert sum(count for (_, mode), count in modes.items() if mode == "direct") >= 40


def test_every_call_names_a_short_situation_and_was_answered_by_the_rules(episodes: list[Episode]) -> None:
    for episode in episodes:
        for consultation in episode.consultations:
            assert list(json.loads(consultation.arguments)) == ["situation"]
            assert consultation.verdict in ("rules_found", "no_applicable_rule")
            assert 3 <= len((consultation.situation or "").split()) <= 12


def test_the_written_demonstrations_touch_every_category_and_are_short() -> None:
    written = read_written()
    assert len({line.category for line in written if line.category}) == RULE_CATEGORIES
    assert len({line.prompt for line in written}) == len(written)
    assert all(len(line.prompt.split()) <= 18 and len(line.answer.split()) <= 30 for line in written)


def test_the_episodes_hold_what_was_written_and_the_present_system_text(episodes: list[Episode]) -> None:
    for line, episode in zip(read_written(), episodes, strict=True):
        assert (episode.prompt, episode.kind, episode.answer) == (line.prompt, line.kind, line.answer)
        assert episode.mode == ("consult" if line.situation else "direct")
        assert episode.messages[0] == {"role": "system", "content": system_prompt()}
