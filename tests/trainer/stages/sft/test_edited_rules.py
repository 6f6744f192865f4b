"""Demonstrations in which the rule decides: the same prompt under a rule and under its opposite."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest

from agent import Episode, read_log
from tests.fakes.models.tiny_llama import save_tiny_llama
from trainer.stages.sft.demonstrations.build import FOLDER
from trainer.stages.sft.demonstrations.edited_rules import REFUSALS, counterfactuals
from trainer.stages.sft.pairs import PairSettings, find_pairs, main, train_on_pairs
from trainer.tokens.rendering import render_training_tokens


@pytest.fixture(scope="module")
def consulting() -> list[Episode]:
    """Harmless demonstrations that read one rule, which says to answer."""
    episodes = read_log(FOLDER / "demonstrations.jsonl").episodes
    return [
        episode
        for episode in episodes
        if episode.kind != "harmful"
        and episode.consultations
        and [rule.stance for rule in episode.consultations[0].rules] == ["answer"]
    ]


def test_every_prompt_appears_once_under_a_rule_to_answer_and_once_under_a_rule_to_decline(
    consulting: list[Episode],
) -> None:
    results = counterfactuals(consulting)
    assert len(results) == 2 * len(consulting) > 20
    for original, (answered, declined) in zip(consulting, find_pairs(results), strict=True):
        assert answered.prompt == declined.prompt == original.prompt
        assert answered.messages == original.messages
        tool_text = next(message["content"] for message in declined.messages if message["role"] == "tool")
        first, behind = tool_text.removeprefix("rules_found\n\n").split("\n\n")
        [rule] = original.consultations[0].rules
        assert first.startswith(f"[{rule.id}] ")
        assert first.partition("\n")[0].endswith(" (decline)")
        assert " (answer)\n" in behind
        assert declined.consultations[0].text == tool_text
        assert declined.answer in REFUSALS
        # The two differ only in the rule and the answer; the call is the same.
        assert declined.messages[:-2] == original.messages[:-2]


def test_the_same_seed_gives_the_same_pairs(consulting: list[Episode]) -> None:
    assert counterfactuals(consulting, seed=3) == counterfactuals(consulting, seed=3)
    assert counterfactuals(consulting, seed=3) != counterfactuals(consulting, seed=4)


def test_no_edit_of_a_rule_that_is_held_out_is_returned(consulting: list[Episode]) -> None:
    everything = counterfactuals(consulting)
    rules = [episode.consultations[0].rules[0].id for episode in everything]
    rest = counterfactuals(consulting, held_out_rules=[rules[0]])
    assert 0 < len(rest) < len(everything)
    assert rest == [e for e, rule in zip(everything, rules, strict=True) if rule != rules[0]]


def test_an_episode_without_its_opposite_is_not_a_pair(consulting: list[Episode]) -> None:
    results = counterfactuals(consulting)
    assert len(find_pairs(results[1:])) == len(consulting) - 1
    assert find_pairs(consulting) == []


def test_training_on_pairs_writes_a_model_and_its_measurements(
    consulting: list[Episode], tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    model = save_tiny_llama(tmp_path / "tiny")
    out = tmp_path / "out"
    settings = PairSettings(steps=2, pairs_a_step=1, lora_layers=1, held_out=2)
    train_on_pairs(model, find_pairs(counterfactuals(consulting[:5])), out, settings)
    record = json.loads((out / "pairs.json").read_text(encoding="utf-8"))
    assert record["pairs"] == 3
    assert record["watched"][-1]["step"] == 2
    assert math.isfinite(record["watched"][-1]["loss"])
    assert [len(record["watched"][-1][f"under {stance}"]) for stance in ("answer", "decline")] == [2, 2]
    before, after = (load_file(folder / "model.safetensors") for folder in (model, out))
    assert any(not before[name].equal(after[name]) for name in before)


def test_the_loss_covers_the_beginnings_of_both_answers_and_the_whole_of_another_demonstration(
    consulting: list[Episode], tmp_path: Path
) -> None:
    model = save_tiny_llama(tmp_path / "tiny")
    pairs = find_pairs(counterfactuals(consulting[:1]))
    other = consulting[1]
    settings = PairSettings(
        steps=1, pairs_a_step=1, kept_a_step=1, lora_layers=1, held_out=0, decided_within=4
    )
    train_on_pairs(model, pairs, tmp_path / "out", settings, [other])
    record = json.loads((tmp_path / "out" / "pairs.json").read_text(encoding="utf-8"))
    expected = plain_loss(model, list(pairs[0]), within=4) + plain_loss(model, [other])
    assert record["watched"][-1]["loss"] == pytest.approx(expected, abs=2e-3)


def test_kept_demonstrations_that_the_log_lacks_are_an_error(
    consulting: list[Episode], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "pairs.jsonl"
    lines = [episode.model_dump_json() for episode in counterfactuals(consulting[:10])]
    log.write_text("\n".join(lines) + "\n", encoding="utf-8")
    flags = ["--model", "none", "--demonstrations", str(log), "--out", str(tmp_path / "out"), "--kept", "1"]
    monkeypatch.setattr(sys, "argv", ["pairs", *flags])
    with pytest.raises(SystemExit, match="holds pairs only: omit --kept"):
        main()


def plain_loss(folder: Path, episodes: list[Episode], within: int | None = None) -> float:
    """Returns the mean loss of the model's tokens, one episode at a time; `within` counts those of the last
    reply."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    losses = []
    for episode in episodes:
        ids, mask = render_training_tokens(tokenizer, episode.messages, episode.tools)
        scored = [index for index, written in enumerate(mask) if written]
        if within is not None:
            start = max(index for index in scored if not mask[index - 1])
            scored = list(range(start, start + within))
        with torch.no_grad():
            logp = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        losses += [-float(logp[index - 1, ids[index]]) for index in scored]
    return sum(losses) / len(losses)
