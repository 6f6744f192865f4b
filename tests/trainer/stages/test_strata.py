"""Stratified groups on a policy of few tokens: masks, ratios, and the expected update by enumeration."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from trl import GRPOTrainer

from tests.fakes.models.few_tokens import (
    ANSWER,
    CALL,
    END,
    NAME,
    OTHER,
    PROMPT,
    save_few_tokens,
    set_probabilities,
)
from trainer.errors import TrainingError
from trainer.ifpo import ifpo_advantages, token_advantages
from trainer.stages.logged.config import LoggedConfig
from trainer.stages.logged.credit import assign_credit, episode_decision_ratios
from trainer.stages.logged.trainer import LoggedIFPOTrainer
from trainer.stages.online.config import OnlineConfig
from trainer.stages.online.strata.call_opening import (
    CONSULT,
    DIRECT,
    NEITHER,
    UNDECIDED,
    CallOpening,
    Decision,
)
from trainer.stages.online.strata.forced_modes import modes_forced
from trainer.stages.online.strata.trainer import StratifiedIFPOTrainer
from trainer.tokens import consult_probabilities

OPENING = CallOpening([CALL, NAME])
CONSULTING, ANSWERING = [CALL, NAME, END], [ANSWER, END]
LENGTH = 3
SIZE, FORCED = 8, 2  # episodes of a group, and forced ones of each mode
FREE = SIZE - 2 * FORCED
SETTINGS: dict[str, Any] = {
    "per_device_train_batch_size": SIZE,
    "max_completion_length": LENGTH,
    "loss_type": "dr_grpo",  # a sum over tokens, divided by a constant
    "use_cpu": True,
}
Gradient = Callable[[int], float]
"""Returns the update of the logit that opens a call, by the number of free episodes that consult."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_few_tokens(tmp_path_factory.mktemp("few"))


def set_policy(network: Any, consult: float, named: float = 1.0) -> None:
    """Sets the probability of beginning a call, and of naming the rule tool in it."""
    set_probabilities(network, PROMPT, {CALL: consult, ANSWER: 1 - consult})
    set_probabilities(network, CALL, {NAME: named, OTHER: 1 - named})
    for token in (NAME, ANSWER, OTHER):
        set_probabilities(network, token, {END: 1.0})


def reward_by_mode(gap: float) -> Callable[..., list[float]]:
    def reward(completions: list[str], **_: Any) -> list[float]:
        return [0.5 + gap * ("consult_safety_rules" in text) for text in completions]

    return reward


def make_online(model: Path, out: Path, gap: float = 0.0, **settings: Any) -> StratifiedIFPOTrainer:
    config = {"forced_consult": FORCED, "forced_direct": FORCED, "scale_rewards": "none", "w_max": math.inf}
    trainer = StratifiedIFPOTrainer(
        model=str(model),
        reward_funcs=reward_by_mode(gap),
        args=OnlineConfig(output_dir=str(out), num_generations=SIZE, **(SETTINGS | config | settings)),
        train_dataset=datasets.Dataset.from_dict({"prompt": ["prompt"]}),
    )
    trainer.opening = OPENING
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    return trainer


def update(trainer: Any, batch: dict[str, Any]) -> float:
    """Returns the update of the logit that opens a call."""
    head = trainer.model.lm_head.weight
    head.grad = None
    trainer._compute_loss(trainer.model, batch).backward()
    return -float(head.grad[CALL, PROMPT]) * LENGTH


def online_gradient(
    model: Path, out: Path, p: float, gap: float, monkeypatch: pytest.MonkeyPatch
) -> Gradient:
    trainer = make_online(model, out, gap)
    set_policy(trainer.model, p)

    def gradient(consulting: int) -> float:
        trainer._is_checked = True  # a rare pattern does not disprove the probabilities
        replies = [CONSULTING] * FORCED + [ANSWERING] * FORCED
        replies += [CONSULTING] * consulting + [ANSWERING] * (FREE - consulting)
        monkeypatch.setattr(GRPOTrainer, "_generate_single_turn", lambda *args, **kwargs: (replies, None))
        return update(trainer, trainer._generate_and_score_completions([{"prompt": "prompt"}] * SIZE))

    return gradient


def logged_gradient(
    model: Path, out: Path, p: float, gap: float, monkeypatch: pytest.MonkeyPatch
) -> Gradient:
    trainer = LoggedIFPOTrainer(
        model=str(model),
        args=LoggedConfig(output_dir=str(out), **SETTINGS),
        train_dataset=datasets.Dataset.from_dict({"prompt": ["prompt"]}),
    )
    set_policy(trainer.model, p)
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    opening = {"prompt_ids": [PROMPT], "completion_ids": OPENING.ids, "loss_mask": [1, 1]}
    (probability,) = consult_probabilities(trainer.logprobs, [opening], 1)

    def gradient(consulting: int) -> float:
        modes = ["consult"] * FORCED + ["direct"] * FORCED
        modes += ["consult"] * consulting + ["direct"] * (FREE - consulting)
        columns = {
            "reward": [0.5 + gap * (mode == "consult") for mode in modes],
            "mode": modes,
            "group_id": ["g"] * SIZE,
            "consultations": [int(mode == "consult") for mode in modes],
        }
        run: Any = SimpleNamespace(method="ifpo", credit="episode", cost=0.0, frequency="group")
        settings = {"alpha": 1.0, "w_max": math.inf, "baseline": "balanced", "scale_rewards": "none"}
        advantages = assign_credit(columns, settings, run, run).decision
        forced = [True] * (2 * FORCED) + [False] * FREE
        ratios = episode_decision_ratios({"g": probability}, modes, forced, ["g"] * SIZE)
        rows = []
        for mode, reward, advantage, ratio in zip(modes, columns["reward"], advantages, ratios, strict=True):
            ids, end = (CONSULTING, 2) if mode == "consult" else (ANSWERING, 1)
            row = {"prompt": "p", "completion": "c", "prompt_ids": [PROMPT], "completion_ids": ids}
            row |= {"loss_mask": [1] * len(ids), "reward": reward, "advantage": float(advantage)}
            row["token_advantages"] = token_advantages(advantage, advantage, ratio, end, len(ids))
            rows.append(row)
        for row, logprobs in zip(rows, trainer.logprobs(rows), strict=True):
            row["logprobs"] = logprobs
        return update(trainer, trainer._generate_and_score_completions(rows))

    return gradient


@pytest.mark.parametrize("stage", [online_gradient, logged_gradient])
@pytest.mark.parametrize("p", [0.3, 0.97])
@pytest.mark.parametrize("gap", [0.4, -0.12])
def test_the_expected_update_of_a_stratified_group_equals_its_closed_form_in_both_stages(
    stage: Any, p: float, gap: float, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gradient = stage(model, tmp_path, p, gap, monkeypatch)
    expected = sum(
        math.comb(FREE, consulting) * p**consulting * (1 - p) ** (FREE - consulting) * gradient(consulting)
        for consulting in range(FREE + 1)
    )
    consult, direct = ((FREE * share + FORCED) / SIZE for share in (p, 1 - p))
    assert expected == pytest.approx(gap / 4 * p * (1 - p) / (consult * direct), abs=1e-6)


def test_forced_replies_obey_and_free_ones_follow_the_policy(model: Path, tmp_path: Path) -> None:
    """The policy opens a call in 3 of 10 replies, and names the rule tool in half of these."""
    trainer = make_online(model, tmp_path, temperature=1.0)
    set_policy(trainer.model, 0.3, named=0.5)
    trainer._is_checked = True
    strata: dict[int | None, Counter[int]] = {CONSULT: Counter(), DIRECT: Counter(), None: Counter()}
    torch.manual_seed(0)
    for _ in range(30):
        batch = trainer._generate_and_score_completions([{"prompt": "prompt"}] * SIZE)
        assert trainer._forced is not None
        for mode, ids in zip(trainer._forced, batch["completion_ids"].tolist(), strict=True):
            strata[mode][OPENING.decision(ids).stratum] += 1
    assert strata[CONSULT] == {CONSULT: 60}
    assert strata[DIRECT] == {DIRECT: 60}
    free = strata[None]
    assert free[DIRECT] / 120 == pytest.approx(0.7, abs=0.15)
    assert free[CONSULT] / 120 == pytest.approx(0.15, abs=0.12)
    assert free[NEITHER] / 120 == pytest.approx(0.15, abs=0.12)


def test_forcing_ends_with_the_block(model: Path, tmp_path: Path) -> None:
    network = make_online(model, tmp_path).model
    before = network.generate
    with modes_forced(network, OPENING, [CONSULT]):
        assert network.generate != before
    assert network.generate == before


def test_tokens_up_to_the_decision_carry_the_ratio_and_later_ones_do_not(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_online(model, tmp_path, 0.4)
    set_policy(trainer.model, 0.9)
    replies = [CONSULTING] * FORCED + [ANSWERING] * FORCED + [CONSULTING] * 3 + [ANSWERING]
    monkeypatch.setattr(GRPOTrainer, "_generate_single_turn", lambda *args, **kwargs: (replies, None))
    advantages = trainer._generate_and_score_completions([{"prompt": "prompt"}] * SIZE)["advantages"]
    modes = [reply == CONSULTING for reply in replies]
    plain = ifpo_advantages(
        [0.5 + 0.4 * mode for mode in modes], modes, [0] * SIZE, w_max=math.inf, scale_rewards="none"
    )
    of_consult, of_direct = 0.9 / (0.5 * 0.9 + 0.25), 0.1 / (0.5 * 0.1 + 0.25)
    for row, advantage, mode in zip(advantages.tolist(), plain, modes, strict=True):
        ratios = [of_consult, of_consult, 1] if mode else [of_direct, 1, 1]
        assert row == pytest.approx([advantage * ratio for ratio in ratios], rel=1e-5)
    assert list(trainer._logs["advantages"]) == pytest.approx(plain.tolist())
    assert list(trainer._logs["extra"]["forced"]) == ["consult"] * 2 + ["direct"] * 2 + [""] * 4
    assert trainer._metrics["train"]["ifpo/opening_probability"] == [pytest.approx(0.9, rel=1e-5)]


def test_an_evaluation_forces_nothing(model: Path, tmp_path: Path) -> None:
    trainer = make_online(model, tmp_path)
    trainer.model.eval()
    trainer.num_generations_eval = SIZE
    set_policy(trainer.model, 1.0)
    batch = trainer._generate_and_score_completions([{"prompt": "prompt"}] * SIZE)
    assert batch["advantages"].dim() == 1
    assert {ids[0] for ids in batch["completion_ids"].tolist()} == {CALL}


def test_openings_that_do_not_explain_the_consultations_are_refused(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_online(model, tmp_path, forced_consult=1, forced_direct=0)
    set_policy(trainer.model, 0.01)
    replies = [[ANSWER, CALL, NAME]] * SIZE
    monkeypatch.setattr(GRPOTrainer, "_generate_single_turn", lambda *args, **kwargs: (replies, None))
    with pytest.raises(TrainingError, match=r"0\.010, but 1\.000 of the free episodes consulted"):
        trainer._generate_and_score_completions([{"prompt": "prompt"}] * SIZE)


@pytest.mark.parametrize(
    ("reply", "decision"),
    [
        ([7, 8, 9, 3, 4, 5, 6], Decision(3, 6, CONSULT)),
        ([9, 3, 6, 6], Decision(1, 3, DIRECT)),
        ([9, 6, 4, 5], Decision(1, 2, DIRECT)),
        ([9, 3, 4, 6], Decision(1, 4, NEITHER)),
        ([9, 3, 4], Decision(1, 3, CONSULT)),
        ([7, 8], Decision(0, 0, UNDECIDED)),
        ([7, 9], Decision(0, 0, UNDECIDED)),
    ],
)
def test_a_reply_decides_after_its_thoughts(reply: list[int], decision: Decision) -> None:
    """Token 9 ends thoughts, 3 is a line break, and 4 and 5 open a call."""
    assert CallOpening([3, 4, 5], lead=1, thoughts_end=9).decision(reply) == decision


def test_a_mode_is_forced_after_the_thoughts_and_the_line_break(model: Path, tmp_path: Path) -> None:
    network = make_online(model, tmp_path).model
    thought, line_break = OTHER, NAME  # three thoughts in four, then a line break, a call and its end
    set_probabilities(network, PROMPT, {thought: 1.0})
    set_probabilities(network, thought, {thought: 0.75, ANSWER: 0.25})
    set_probabilities(network, ANSWER, {line_break: 1.0})
    set_probabilities(network, line_break, {CALL: 0.5, END: 0.5})
    set_probabilities(network, CALL, {END: 1.0})
    opening = CallOpening([line_break, CALL], lead=1, thoughts_end=ANSWER)
    torch.manual_seed(1)
    with modes_forced(network, opening, [CONSULT, DIRECT] * 16):
        replies = network.generate(
            input_ids=torch.full((32, 1), PROMPT), do_sample=True, max_new_tokens=40, eos_token_id=END
        )[:, 1:].tolist()
    strata = np.array([opening.decision(reply).stratum for reply in replies])
    assert set(strata[::2]) == {CONSULT}
    assert set(strata[1::2]) == {DIRECT}
    assert len({reply.index(ANSWER) for reply in replies}) > 3  # thoughts differ
