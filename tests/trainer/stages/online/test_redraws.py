"""Dynamic sampling: groups that do not compare the modes are replaced, on a policy of few tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
import torch

from tests.fakes.models.few_tokens import (
    ANSWER,
    CALL,
    END,
    NAME,
    PAD,
    PROMPT,
    save_few_tokens,
    set_probabilities,
)
from trainer.stages.online.config import OnlineConfig
from trainer.stages.online.strata.call_opening import CallOpening
from trainer.stages.online.strata.redraws import compare_modes, merge
from trainer.stages.online.strata.trainer import StratifiedIFPOTrainer

SIZE, GROUPS = 4, 3


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_few_tokens(tmp_path_factory.mktemp("few"))


def make_trainer(model: Path, out: Path, consult: float, **settings: Any) -> StratifiedIFPOTrainer:
    """Returns a trainer whose policy consults with this probability, and answers at various lengths."""

    def reward(completions: list[str], **_: Any) -> list[float]:
        return [float("consult_safety_rules" in text) for text in completions]

    config = {"per_device_train_batch_size": SIZE * GROUPS, "max_completion_length": 12, "use_cpu": True}
    trainer = StratifiedIFPOTrainer(
        model=str(model),
        reward_funcs=reward,
        args=OnlineConfig(output_dir=str(out), num_generations=SIZE, **(config | settings)),
        train_dataset=datasets.Dataset.from_dict(
            {"prompt": ["prompt", "prompt prompt", "prompt prompt prompt"]}
        ),
    )
    trainer.opening = CallOpening([CALL, NAME])
    set_probabilities(trainer.model, PROMPT, {CALL: consult, ANSWER: 1 - consult})
    set_probabilities(trainer.model, CALL, {NAME: 1.0})
    set_probabilities(trainer.model, ANSWER, {ANSWER: 0.6, END: 0.4})
    set_probabilities(trainer.model, NAME, {END: 1.0})
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    trainer._is_checked = True
    return trainer


def score(trainer: StratifiedIFPOTrainer) -> dict[str, Any]:
    torch.manual_seed(0)
    return trainer._generate_and_score_completions([{"prompt": "prompt"}] * (SIZE * GROUPS))


@pytest.mark.parametrize("forced", [0, 1])
def test_groups_are_drawn_until_all_of_them_hold_both_modes(forced: int, model: Path, tmp_path: Path) -> None:
    trainer = make_trainer(model, tmp_path, 0.9, max_draws=40, forced_consult=forced)
    batch = score(trainer)
    rows = batch["completion_ids"]
    assert len(rows) == SIZE * GROUPS
    consults = (rows[:, 0] == CALL).view(GROUPS, SIZE).sum(1)
    assert ((consults > 0) & (consults < SIZE)).all()
    for ids, mask in zip(rows.tolist(), batch["completion_mask"].tolist(), strict=True):
        written = [id for id, own in zip(ids, mask, strict=True) if own]
        assert written[0] in (CALL, ANSWER)
        assert set(ids[len(written) :]) <= {PAD}
    for ids, mask in zip(batch["prompt_ids"].tolist(), batch["prompt_mask"].tolist(), strict=True):
        assert ids == [PAD] * (len(ids) - sum(mask)) + [PROMPT] * sum(mask)
    assert batch["num_items_in_batch"] == batch["completion_mask"].sum()
    metrics = trainer._metrics["train"]
    assert metrics["ifpo/draws"][0] > 1
    assert metrics["ifpo/comparing_groups"] == [1.0]
    last = batch["completion_mask"].sum(1) - 1
    found = batch["advantages"]
    advantages = (found[torch.arange(len(found)), last] if forced else found).view(GROUPS, SIZE)
    torch.testing.assert_close(advantages.sum(1), torch.zeros(GROUPS), atol=1e-4, rtol=0)
    assert advantages.abs().amax(1).min() > 0.1
    loss = trainer._compute_loss(trainer.model, batch)
    loss.backward()
    assert trainer.model.lm_head.weight.grad[:, PROMPT].abs().max() > 0


def test_a_policy_that_is_certain_stops_at_the_limit_with_a_whole_batch(model: Path, tmp_path: Path) -> None:
    trainer = make_trainer(model, tmp_path, 1.0, max_draws=3)
    assert len(score(trainer)["completion_ids"]) == SIZE * GROUPS
    assert trainer._metrics["train"]["ifpo/draws"] == [3.0]
    assert trainer._metrics["train"]["ifpo/comparing_groups"] == [0.0]


def test_a_run_learns_from_redrawn_groups_and_an_evaluation_redraws_nothing(
    model: Path, tmp_path: Path
) -> None:
    trainer = make_trainer(model, tmp_path, 0.9, max_draws=5, max_steps=2, learning_rate=0.1)
    before = trainer.model.lm_head.weight.detach().clone()
    trainer.train()
    assert all("ifpo/draws" in entry for entry in trainer.state.log_history if "loss" in entry)
    assert not torch.equal(before, trainer.model.lm_head.weight)
    trainer.model.eval()
    trainer.num_generations_eval = SIZE
    score(trainer)
    assert "ifpo/draws" not in trainer._metrics["eval"]


def test_episodes_without_a_reward_do_not_make_a_group_compare_the_modes() -> None:
    none = float("nan")
    rewards = torch.tensor([1.0, 0.0, 1.0, none, 1.0, 1.0, 1.0, none])
    modes = torch.tensor([True, False, True, False, True, False, True, False])
    assert compare_modes(rewards, modes, 2) == [True, False, False, False]
    assert compare_modes(rewards, modes, 4) == [True, False]


def test_merged_rows_keep_their_tokens() -> None:
    first = {
        "prompt_ids": torch.tensor([[1], [2]]),
        "completion_mask": torch.ones(2, 3),
        "advantages": torch.arange(2),
    }
    second = {
        "prompt_ids": torch.tensor([[3, 4]]),
        "completion_mask": torch.ones(1, 1),
        "advantages": torch.tensor([7]),
    }
    merged = merge([(first, slice(1, 2)), (second, slice(0, 1))], 9)
    assert merged["prompt_ids"].tolist() == [[9, 2], [3, 4]]
    assert merged["completion_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert merged["advantages"].tolist() == [1, 7]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"max_draws": 0}, "max_draws is 0, but it must be at least 1"),
        ({"max_draws": 2, "scale_rewards": "batch"}, "compute advantages from all groups of a draw"),
        ({"max_draws": 2, "frequency": "batch"}, "compute advantages from all groups of a draw"),
    ],
)
def test_settings_that_cannot_replace_groups_are_refused(
    settings: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=expected):
        OnlineConfig(output_dir=str(tmp_path), num_generations=SIZE, use_cpu=True, **settings)


def test_a_group_on_two_processes_is_refused(tmp_path: Path) -> None:
    config = OnlineConfig(output_dir=str(tmp_path), num_generations=SIZE, use_cpu=True, max_draws=2)
    config.per_device_train_batch_size = 6  # of each of two processes
    with pytest.raises(ValueError, match="samples 6 episodes at a time, not a multiple of 4: set"):
        config._check_draws()
