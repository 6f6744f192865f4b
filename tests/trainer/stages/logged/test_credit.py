"""Advantages of each token: methods, split credit, and stratified groups."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from agent.episode import Episode
from evaluation.scorers import score_log, write_rewards
from tests.fakes.episodes.log import make_episode, write_log
from tests.fakes.models.tiny_llama import save_tiny_llama, tiny_tokenizer
from trainer.cli import app
from trainer.ifpo import ifpo_advantages, token_advantages
from trainer.stages.logged.credit import (
    Credit,
    assign_credit,
    episode_decision_ratios,
    smoothed_consult_rates,
)
from trainer.tokens import call_opening, consult_probabilities

REFUSAL = "I can't help with that."
COLUMNS = {
    "reward": [0.0, 1.0, 0.0, 1.0, 1.0, 0.5],
    "mode": ["consult", "consult", "consult", "direct", "consult", "direct"],
    "group_id": ["a", "a", "a", "a", "b", "b"],
    "consultations": [1, 2, 1, 0, 1, 0],
}
PREPARED = {"alpha": 1.0, "w_max": 4.0, "baseline": "balanced", "scale_rewards": "group", "eps": 1e-4}


def make_settings(**settings: Any) -> Any:
    standard = {"method": "ifpo", "frequency": "group", "credit": "episode", "cost": 0.1}
    standard |= {"consult_cost_where": "always"}
    return SimpleNamespace(**(standard | settings))


def compute_credit(columns: dict[str, list[Any]], **settings: Any) -> Credit:
    settings = make_settings(**settings)
    return assign_credit(columns, PREPARED, settings, settings)


def test_each_method_is_a_reward_and_a_weighting() -> None:
    rewards, modes, groups = (np.array(COLUMNS[name]) for name in ("reward", "mode", "group_id"))
    expected = {
        "ifpo": ifpo_advantages(rewards, modes, groups),
        "grpo": ifpo_advantages(rewards, modes, groups, alpha=0),
        "grpo+cost": ifpo_advantages(
            rewards - 0.25 * np.array(COLUMNS["consultations"]), modes, groups, alpha=0
        ),
    }
    for method, advantages in expected.items():
        credit = compute_credit(COLUMNS, method=method, cost=0.25)
        np.testing.assert_array_equal(credit.decision, advantages)
        np.testing.assert_array_equal(credit.rest, advantages)


def test_a_cost_can_be_charged_only_where_direct_episodes_earned_as_much() -> None:
    """The direct episode of group `a` earned more than the mean of the others, that of `b` earned less."""
    settings: dict[str, Any] = {"method": "grpo+cost", "cost": 0.25}
    always, without = compute_credit(COLUMNS, **settings), compute_credit(COLUMNS, method="grpo")
    credit = compute_credit(COLUMNS, **settings, consult_cost_where="direct_as_good")
    np.testing.assert_array_equal(credit.decision[:4], always.decision[:4])
    np.testing.assert_array_equal(credit.decision[4:], without.decision[4:])


def test_frequencies_can_be_counted_over_the_whole_file() -> None:
    credit = compute_credit(COLUMNS, frequency="batch")
    plain = compute_credit(COLUMNS)
    assert not np.allclose(credit.decision, plain.decision)


def test_an_episode_with_a_nan_reward_has_no_advantage_and_changes_no_other() -> None:
    extended = {name: [*values, values[0]] for name, values in COLUMNS.items()} | {
        "reward": [*COLUMNS["reward"], math.nan]
    }
    credit = compute_credit(extended)
    np.testing.assert_array_equal(credit.decision[:-1], compute_credit(COLUMNS).decision)
    assert math.isnan(credit.decision[-1])
    assert credit.is_zero[-1]


def test_split_credit_separates_the_advantage_between_modes_from_that_within_a_mode() -> None:
    credit = compute_credit(COLUMNS, credit="split")
    consulting, direct = credit.decision[:3], credit.decision[3]
    assert consulting.tolist() == [consulting[0]] * 3  # equal within a mode
    assert consulting[0] < 0 < direct
    assert credit.rest[3] == 0  # alone in its mode
    assert credit.rest[1] > 0 > credit.rest[0]
    assert token_advantages(2.0, -1.0, 0.5, end=3, length=6) == [1.0, 1.0, 1.0, -1.0, -1.0, -1.0]


def test_thoughts_before_a_decision_get_the_update_of_unforced_sampling() -> None:
    thought, consult = np.array([0.7, 0.3]), np.array([0.99, 0.9])  # p(thought), p(consult | thought)
    drawn = thought[:, None] * np.stack([consult, 1 - consult], 1)  # (thoughts, modes)
    rate = drawn.sum(0)
    mixed = 0.5 * rate + np.array([0.25, 0.25])  # of eight, four free and two forced into each mode
    modes, forced = ["consult", "consult", "direct", "direct"], [False, True, False, True]
    rho = episode_decision_ratios({"g": rate[0]}, modes, forced, ["g"] * 4)[[0, 2]]  # one ratio per mode
    logit = np.array([1.0, 0.0]) - thought[0]  # gradient of the first thought's logit, by thought
    pushed = unforced = 0.0
    for mode, advantage in enumerate([-0.2, 1.0]):
        first = token_advantages(advantage, 0.0, rho[mode], end=3, length=4)[0]
        for thoughts in range(2):
            pushed += drawn[thoughts, mode] / rate[mode] * mixed[mode] * first * logit[thoughts]
            unforced += drawn[thoughts, mode] * advantage * logit[thoughts]
    assert pushed == pytest.approx(unforced)


def test_the_ratio_of_a_decision_is_its_probability_over_that_of_the_stratified_group() -> None:
    modes = ["consult", "direct", "consult", "consult", "direct", "direct", "direct", "direct"]
    forced = [False] * 4 + [True] * 4
    groups = ["g"] * 8
    modes[2:6] = ["consult", "consult", "consult", "consult"]
    rho = episode_decision_ratios({"g": 0.9}, modes, forced, groups)
    consults, directs = modes.count("consult"), modes.count("direct")
    assert (consults, directs) == (5, 3)
    of_consult, of_direct = 0.9 / (0.5 * 0.9 + 2 / 8), 0.1 / (0.5 * 0.1 + 2 / 8)
    expected = [of_consult if mode == "consult" else of_direct for mode in modes]
    assert rho.tolist() == pytest.approx(expected)
    assert smoothed_consult_rates(modes, forced, groups) == {"g": 3.5 / 5}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("tiny"))


def test_the_probability_of_consulting_is_that_of_the_tokens_that_open_a_call(model: Path) -> None:
    from transformers import AutoModelForCausalLM

    tokenizer = tiny_tokenizer()
    network = AutoModelForCausalLM.from_pretrained(model, dtype="float32")
    row = call_opening(tokenizer, [{"role": "user", "content": "Hello"}], [])
    assert tokenizer.decode(row["prompt_ids"]).endswith("<|im_start|>assistant\n")
    assert tokenizer.decode(row["completion_ids"]) == '<tool_call>\n{"name": "consult_safety_rules'

    def score(rows: list[dict[str, Any]]) -> list[list[float]]:
        logprobs = []
        for each in rows:
            ids = torch.tensor([each["prompt_ids"] + each["completion_ids"]])
            with torch.no_grad():
                scores = network(ids).logits[0].log_softmax(-1)
            start = len(each["prompt_ids"]) - 1
            logprobs.append(
                [scores[start + i, token].item() for i, token in enumerate(each["completion_ids"])]
            )
        return logprobs

    (probability,) = consult_probabilities(score, [row], 4)
    assert 0 < probability < 1e-3  # a random model
    assert probability == pytest.approx(math.exp(sum(score([row])[0])))


def stratified() -> list[Episode]:
    """Two free episodes that both consult, and one forced into each mode."""
    forced = {"mode_forced": True}
    consult = make_episode(
        "a", "benign_plain", REFUSAL, sample=2, consult=True, mode_method="agent_call", **forced
    )
    return [
        make_episode("a", "benign_plain", REFUSAL, sample=0, consult=True),
        make_episode("a", "benign_plain", REFUSAL, sample=1, consult=True),
        consult.model_copy(update={"turns": consult.turns[1:]}),
        make_episode("a", "benign_plain", "Here is how.", sample=3, mode_method="resample", **forced),
    ]


@pytest.mark.parametrize("method", ["decision", "rate"])
def test_a_stratified_group_is_trained_on_and_the_record_states_the_method_of_weighting(
    method: str, model: Path, tmp_path: Path
) -> None:
    logged = stratified()
    log = write_log(tmp_path / "log.jsonl", logged)
    write_rewards(tmp_path / "rewards.jsonl", score_log(logged))
    groups, out = tmp_path / "groups.parquet", tmp_path / "out"
    options = ["--out", str(groups), "--keep-forced"]
    credit = CliRunner().invoke(app, ["prepare", str(log), str(tmp_path / "rewards.jsonl"), *options])
    assert credit.exit_code == 0, credit.output
    named = ["--model", str(model), "--groups", str(groups), "--out", str(out), "--mode_probability", method]
    fast = ["--per_device_train_batch_size", "4", "--lora_layers", "2", "--learning_rate", "0.01"]
    result = CliRunner().invoke(
        app, ["logged", *named, *fast, "--credit", "split", "--num_train_epochs", "3"]
    )
    assert result.exit_code == 0, result.output
    record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert record["data"]["episodes"] == 4
    assert record["stratified"]["mode_probability"] == method
    probability = record["stratified"]["mean_consult_probability"]
    assert probability == pytest.approx(2.5 / 3, abs=1e-3) if method == "rate" else probability < 1e-3
    assert record["off_policy"]["text_only_episodes"] == 4
    assert len(record["steps"]) == 3
