"""Which advantage each token carries: methods, split credit, stratified groups, from a file of groups."""

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
from trainer.ifpo import ifpo_advantages
from trainer.stages.logged.credit import (
    Credit,
    assign_credit,
    episode_decision_ratios,
    smoothed_consult_rates,
    token_advantages,
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


def asked(**settings: Any) -> Any:
    standard = {"method": "ifpo", "frequency": "group", "credit": "episode", "cost": 0.1}
    return SimpleNamespace(**(standard | settings))


def credited(columns: dict[str, list[Any]], **settings: Any) -> Credit:
    given = asked(**settings)
    return assign_credit(columns, PREPARED, given, given)


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
        made = credited(COLUMNS, method=method, cost=0.25)
        np.testing.assert_array_equal(made.decision, advantages)
        np.testing.assert_array_equal(made.rest, advantages)


def test_frequencies_can_be_counted_over_the_whole_file() -> None:
    made = credited(COLUMNS, frequency="batch")
    plain = credited(COLUMNS)
    assert not np.allclose(made.decision, plain.decision)


def test_an_episode_whose_reward_is_no_number_has_no_advantage_and_changes_no_other() -> None:
    more = {name: [*values, values[0]] for name, values in COLUMNS.items()} | {
        "reward": [*COLUMNS["reward"], math.nan]
    }
    made = credited(more)
    np.testing.assert_array_equal(made.decision[:-1], credited(COLUMNS).decision)
    assert math.isnan(made.decision[-1])
    assert made.is_zero[-1]


def test_split_credit_gives_the_decision_its_modes_worth_and_the_rest_what_was_made_of_it() -> None:
    made = credited(COLUMNS, credit="split")
    consulting, direct = made.decision[:3], made.decision[3]
    assert consulting.tolist() == [consulting[0]] * 3  # one worth for a mode
    assert consulting[0] < 0 < direct
    assert made.rest[3] == 0  # alone in its mode: nothing to compare with
    assert made.rest[1] > 0 > made.rest[0]
    row = {"completion_ids": [0] * 6, "decision": [1, 3], "advantage": 2.0, "rest_advantage": -1.0}
    assert token_advantages(row, 0.5) == [1.0, 1.0, 1.0, -1.0, -1.0, -1.0]


def test_thoughts_before_a_decision_are_pushed_as_if_no_mode_had_been_forced() -> None:
    thought, consult = np.array([0.7, 0.3]), np.array([0.99, 0.9])  # p(thought), p(consult | thought)
    drawn = thought[:, None] * np.stack([consult, 1 - consult], 1)  # (thoughts, modes)
    rate = drawn.sum(0)
    mixed = 0.5 * rate + np.array([0.25, 0.25])  # four of eight free, two forced into each mode by resampling
    modes, forced = ["consult", "consult", "direct", "direct"], [False, True, False, True]
    rho = episode_decision_ratios({"g": rate[0]}, modes, forced, ["g"] * 4)[
        [0, 2]
    ]  # half of these are free as well
    logit = np.array([1.0, 0.0]) - thought[0]  # of the first thought, by what was thought
    row = {"completion_ids": [0] * 4, "decision": [2, 3], "rest_advantage": 0.0}
    pushed = unforced = 0.0
    for mode, advantage in enumerate([-0.2, 1.0]):
        first = token_advantages(row | {"advantage": advantage}, rho[mode])[0]
        for thoughts in range(2):
            pushed += drawn[thoughts, mode] / rate[mode] * mixed[mode] * first * logit[thoughts]
            unforced += drawn[thoughts, mode] * advantage * logit[thoughts]
    assert pushed == pytest.approx(unforced)


def test_the_weight_of_a_decision_is_its_probability_over_that_of_the_group_as_it_was_made() -> None:
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


def test_the_probability_of_consulting_is_that_of_the_tokens_which_open_a_call(model: Path) -> None:
    from transformers import AutoModelForCausalLM

    tokenizer = tiny_tokenizer()
    network = AutoModelForCausalLM.from_pretrained(model, dtype="float32")
    row = call_opening(tokenizer, [{"role": "user", "content": "Hello"}], [])
    assert tokenizer.decode(row["prompt_ids"]).endswith("<|im_start|>assistant\n")
    assert tokenizer.decode(row["completion_ids"]) == '<tool_call>\n{"name": "consult_safety_rules'

    def score(rows: list[dict[str, Any]]) -> list[list[float]]:
        found = []
        for each in rows:
            ids = torch.tensor([each["prompt_ids"] + each["completion_ids"]])
            with torch.no_grad():
                scores = network(ids).logits[0].log_softmax(-1)
            start = len(each["prompt_ids"]) - 1
            found.append([scores[start + i, token].item() for i, token in enumerate(each["completion_ids"])])
        return found

    (chance,) = consult_probabilities(score, [row], 4)
    assert 0 < chance < 1e-3  # a random model
    assert chance == pytest.approx(math.exp(sum(score([row])[0])))


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


@pytest.mark.parametrize("how", ["decision", "rate"])
def test_a_stratified_group_is_trained_on_and_the_record_says_how_its_decisions_were_weighed(
    how: str, model: Path, tmp_path: Path
) -> None:
    logged = stratified()
    log = write_log(tmp_path / "log.jsonl", logged)
    write_rewards(tmp_path / "rewards.jsonl", score_log(logged))
    groups, out = tmp_path / "groups.parquet", tmp_path / "out"
    options = ["--out", str(groups), "--keep-forced"]
    made = CliRunner().invoke(app, ["prepare", str(log), str(tmp_path / "rewards.jsonl"), *options])
    assert made.exit_code == 0, made.output
    named = ["--model", str(model), "--groups", str(groups), "--out", str(out), "--mode_probability", how]
    fast = ["--per_device_train_batch_size", "4", "--lora_layers", "2", "--learning_rate", "0.01"]
    done = CliRunner().invoke(app, ["logged", *named, *fast, "--credit", "split", "--num_train_epochs", "3"])
    assert done.exit_code == 0, done.output
    record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert record["data"]["episodes"] == 4
    assert record["stratified"]["mode_probability"] == how
    chance = record["stratified"]["mean_consult_probability"]
    assert chance == pytest.approx(2.5 / 3, abs=1e-3) if how == "rate" else chance < 1e-3
    assert record["off_policy"]["text_only_episodes"] == 4
    assert len(record["steps"]) == 3
