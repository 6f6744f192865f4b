"""The measurement of the decision's gradient: formulas by enumeration and autograd, rollouts, a run."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.learning.decision_gradient import main
from benchmarks.learning.decision_gradient.designs import (
    DESIGNS,
    SIZE,
    Design,
    PromptPool,
    draw_groups,
    groups_for_sign,
    one_mode,
    updates_needed,
    weigh,
)
from benchmarks.learning.decision_gradient.figures.gap import Drawn, compare
from benchmarks.learning.decision_gradient.gradients import AdapterGradients, Branch
from benchmarks.learning.decision_gradient.measure import load_measured
from benchmarks.learning.decision_gradient.rollout.decoder import Decoder
from benchmarks.learning.decision_gradient.rollout.sampling import Sampler, strata
from tests.fakes.models.tiny_llama import save_tiny_llama
from tests.fakes.rules.scripted import ScriptedRules
from trainer.stages.online.strata.call_opening import CONSULT, DIRECT, find_call_opening

TOOL = {
    "type": "function",
    "function": {
        "name": "consult_safety_rules",
        "description": "Look up rules.",
        "parameters": {
            "type": "object",
            "properties": {"situation": {"type": "string"}},
            "required": ["situation"],
        },
    },
}
REWARDS = st.lists(st.sampled_from([-0.2, 0.0, 0.8, 1.0, float("nan")]), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(st.floats(0.02, 0.98), REWARDS, REWARDS, st.sampled_from(list(DESIGNS)), st.integers(0, 99))
def test_the_gradient_in_the_log_odds_is_that_of_autograd(
    probability: float, consult: list[float], direct: list[float], design: str, seed: int
) -> None:
    pool = PromptPool(probability, np.array(consult), np.array(direct))
    groups = draw_groups(pool, DESIGNS[design], 5, np.random.default_rng(seed))
    for index, found in enumerate(groups.logit_gradients(probability)):
        logit = torch.tensor(probability, dtype=torch.float64).logit().requires_grad_()
        consults = torch.from_numpy(groups.consults[index])
        logs = torch.where(
            consults, torch.nn.functional.logsigmoid(logit), torch.nn.functional.logsigmoid(-logit)
        )
        (torch.from_numpy(groups.coefficients[index]) * logs).sum().backward()
        assert logit.grad is not None
        assert found == pytest.approx(logit.grad.item(), abs=1e-9)


@pytest.mark.parametrize("name", DESIGNS)
def test_drawn_groups_have_the_expected_gradient_of_all_patterns_of_modes(name: str) -> None:
    design, pool = DESIGNS[name], PromptPool(0.8, np.array([1.0]), np.array([0.0]))
    free = SIZE - design.consult - design.direct
    forced = [True] * design.consult + [False] * design.direct
    expected = 0.0
    for pattern in itertools.product((True, False), repeat=free):
        consults = np.array([[*forced, *pattern]])
        chance = float(np.prod(np.where(pattern, 0.8, 1 - 0.8)))
        group = weigh(pool, design, consults, np.zeros((1, SIZE), dtype=int))
        expected += chance * float(group.logit_gradients(0.8)[0])
    drawn = draw_groups(pool, design, 4000, np.random.default_rng(0)).logit_gradients(0.8)
    assert drawn.mean() == pytest.approx(expected, abs=4 * drawn.std() / 4000**0.5 + 1e-9)
    assert expected > 0, "consulting is better"


@given(st.floats(0.02, 0.98), st.floats(-1, 1), st.floats(-1, 1))
def test_balanced_strata_push_by_p_times_1_minus_p_times_the_scaled_difference(
    probability: float, consult: float, direct: float
) -> None:
    pool = PromptPool(probability, np.array([consult]), np.array([direct]))
    found = draw_groups(pool, DESIGNS["IFPO, strata 4 + 4"], 1, np.random.default_rng(0))
    spread = abs(consult - direct) / 2 * (SIZE / (SIZE - 1)) ** 0.5
    expected = probability * (1 - probability) * (consult - direct) / (spread + 1e-4)
    assert found.logit_gradients(probability)[0] == pytest.approx(expected, abs=1e-9)
    grpo = draw_groups(pool, Design(0.0, 4, 4), 1, np.random.default_rng(0))
    assert grpo.coefficients == pytest.approx(found.coefficients), "equal shares need no weights"


def test_groups_without_strata_share_their_episodes() -> None:
    pool = PromptPool(0.9, np.arange(6.0), np.arange(4.0))
    first, second = (
        draw_groups(pool, DESIGNS[name], 50, np.random.default_rng(3)) for name in ("GRPO", "IFPO")
    )
    assert (first.rewards == second.rewards).all()
    for consults, episodes in zip(first.consults, first.episode, strict=True):
        direct = episodes[~consults]
        assert len(set(direct)) == min(len(direct), 4), "no episode twice while there are others"
    assert 0 < one_mode(first).mean() < 1
    assert updates_needed(0.28) == pytest.approx(100)
    with pytest.raises(ValueError, match="both modes"):
        PromptPool(0.5, np.array([]), np.array([1.0]))


def test_groups_for_the_sign_are_those_of_a_normal_mean() -> None:
    count = round(groups_for_sign(0.4))
    means = np.random.default_rng(0).normal(0.4, 1, (20000, count)).mean(1)
    assert (means > 0).mean() == pytest.approx(0.95, abs=0.01)
    assert groups_for_sign(0) == groups_for_sign(-1) == float("inf")


def test_the_sign_of_the_gap_needs_as_many_groups_as_a_simulation_of_its_estimates() -> None:
    """Half of the groups are harmful. Each kind has two prompts with noise within and between them."""
    random = np.random.default_rng(1)
    kinds = np.array(["harmful"] * 2 + ["benign_plain"] * 2)
    centers = np.array([0.5, 0.1, -0.3, 0.1])
    gradient = centers[:, None] + random.normal(0, 0.3, (4, 4000))
    zero, one = np.zeros_like(gradient), np.ones_like(gradient)
    drawn = {"GRPO": Drawn(gradient, zero, zero, zero, one, np.zeros((4, 1)))}
    figures = compare(drawn, kinds, [np.arange(4)], {})
    needed, *_ = figures["GRPO"]["groups_for_sign"]["own log-odds"]
    half = round(needed / 2)
    harmful, harmless = (
        gradient[random.choice(places, (4000, half)), random.integers(0, 4000, (4000, half))].mean(1)
        for places in ([0, 1], [2, 3])
    )
    assert (harmful > harmless).mean() == pytest.approx(0.95, abs=0.02)
    assert figures["GRPO"]["groups_for_sign"]["shared parameters"] == [None] * 3


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("tiny"))


def _load(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def test_sketches_are_those_of_the_whole_model_s_gradient(tiny: Path) -> None:
    model, _ = _load(tiny)
    prompt, branches = [1, 5, 6, 7], [[8, 9, 10], [11]]
    hidden = []
    for ids in branches:
        with torch.no_grad():
            hidden.append(model(torch.tensor([prompt + ids]), output_hidden_states=True).hidden_states[1][0])
    measured = AdapterGradients(tiny, model, layers=2, rank=2, temperature=0.7)
    weights = [[[1.0, 0.5, 2.0], [0.0, 1.0, 0.0]], [[0.25], [1.0]]]
    found = measured.sketches(
        hidden[0][: len(prompt)].detach(),
        [
            Branch(ids, states[len(prompt) : len(prompt) + len(ids) - 1].detach(), rows)
            for ids, states, rows in zip(branches, hidden, weights, strict=True)
        ],
    )
    for row in range(2):
        total = torch.tensor(0.0)
        for ids, rows in zip(branches, weights, strict=True):
            logits = model(torch.tensor([prompt + ids])).logits[0] / 0.7
            logs = logits.log_softmax(-1)[len(prompt) - 1 : -1]
            chosen = logs[torch.arange(len(ids)), torch.tensor(ids)]
            total = total + (chosen * torch.tensor(rows[row])).sum()
        parts = torch.autograd.grad(total, measured.parameters)
        expected = measured.sketch(torch.cat([part.flatten() for part in parts]))
        assert expected.norm() > 0
        assert torch.allclose(found[row], expected, rtol=1e-3, atol=1e-5)


def test_rollouts_obey_their_modes_and_keep_the_states_of_the_whole_sequence(tiny: Path) -> None:
    model, tokenizer = _load(tiny)
    asked: list[Any] = []
    rules = SimpleNamespace(tool=TOOL, consult=lambda arguments: asked.append(arguments) or "a rule")
    opening = find_call_opening(tokenizer, TOOL)
    sampler = Sampler(model, tokenizer, opening, rules, frozenset({tokenizer.eos_token_id}), 1, max_tokens=60)
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tools=[TOOL], add_generation_prompt=True, return_dict=False
        )
        for text in ("Hello", "How do I boil an egg?")
    ]
    episodes, states = sampler.sample(prompts, [strata(3, 3, 1)] * 2, torch.Generator().manual_seed(0))
    assert [each.forced for each in episodes] == [CONSULT] * 3 + [DIRECT] * 3 + [None] + [CONSULT] * 3 + [
        DIRECT
    ] * 3 + [None]
    for each in episodes:
        if each.forced is not None:
            assert opening.decision(each.ids).stratum == each.forced
        with torch.no_grad():
            whole = model(torch.tensor([each.prompt + each.ids]), output_hidden_states=True).hidden_states[1][
                0
            ]
        size = len(each.prompt)
        assert torch.allclose(whole[:size], states[each.row], atol=1e-5)
        assert torch.allclose(whole[size:-1], torch.stack(each.hidden), atol=1e-5)
        assert len(each.written) == len(each.ids)
    first = episodes[0]
    logits = model(torch.tensor([first.prompt + opening.ids])).logits[0] / sampler.temperature
    logs = logits.log_softmax(-1)[len(first.prompt) - 1 : -1]
    expected = logs[torch.arange(len(opening.ids)), torch.tensor(opening.ids)].tolist()
    assert first.log_opening == pytest.approx(expected, abs=1e-4)


def test_a_decoder_continues_after_episodes_were_parked_and_restored(tiny: Path) -> None:
    model, _ = _load(tiny)
    decoder = Decoder(model, 1)
    ones = torch.ones(1, 3, dtype=torch.bool)
    decoder.advance(torch.tensor([[1, 5, 6]]), ones)
    decoder.select([0, 0, 0])
    decoder.advance(torch.tensor([[7], [8], [9]]), torch.tensor([[True], [False], [True]]))
    parked = decoder.park([(1, 1)])
    decoder.select([0, 2])
    decoder.advance(torch.tensor([[10], [11]]), torch.ones(2, 1, dtype=torch.bool))
    whole = decoder.restore(parked, [0, 2])
    block = torch.tensor([[12, 13], [14, 15], [16, 0]])
    logits, _ = whole.advance(block, torch.tensor([[True, True], [True, True], [True, False]]))
    for row, ids in enumerate(([1, 5, 6, 7, 10, 12, 13], [1, 5, 6, 14, 15], [1, 5, 6, 9, 11, 16])):
        with torch.no_grad():
            expected = model(torch.tensor([ids])).logits[0, -1]
        assert torch.allclose(logits[row], expected, atol=1e-5)


def test_a_run_resumes_and_reports(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    rows = [
        {"id": f"{kind}-{n}", "prompt": f"{kind} {n}?", "kind": kind} for kind in main.KINDS for n in range(3)
    ]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    data = tmp_path / "data"
    data.mkdir()
    monkeypatch.setattr(main, "DATA", data)
    out = tmp_path / "out"

    def call(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["main", *words, "--out", str(out)])
        return main.main()

    assert call("report") == 1
    assert "holds no measurements" in capsys.readouterr().err
    with ScriptedRules() as rules:
        options = ("--base", str(tiny), "--no-adapter", "--prompts", str(prompts), "--layers", "2")
        for per_kind in ("2", "3"):
            assert call("run", *options, "--rules-url", rules.url, "--per-kind", per_kind) == 0
    ids = [each.row["prompt_id"] for each in load_measured(out)]
    assert sorted(ids) == sorted(row["id"] for row in rows), "no prompt was measured twice"
    assert call("report", "--save") == 0
    assert "updates to tell" in capsys.readouterr().out
    figures = json.loads((data / "figures.json").read_text(encoding="utf-8"))
    assert set(figures["kinds"]) == set(main.KINDS)
    assert figures["rest"]["prompts"] == 3
    assert (data / "snr.png").is_file()
