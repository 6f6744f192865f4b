"""The decision benchmark: its shortcuts equal the full model, and it can be interrupted at any time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.learning.decision.data.prompts import (
    held_out_prompts,
    source_prompts,
    training_prompts,
    validation_prompts,
)
from benchmarks.learning.decision.experiment.outcomes import prompt_chances, random_numbers
from benchmarks.learning.decision.experiment.runner import ExperimentSetup, RunFolders, run_experiment
from benchmarks.learning.decision.experiment.settings import Experiment, Method, read_experiments
from benchmarks.learning.decision.main import REGISTERED
from benchmarks.learning.decision.model.policy import DecisionPolicy
from benchmarks.learning.decision.model.training import train
from benchmarks.learning.decision.report import expected_reward, format_tables, separation, summarize
from tests.fakes.models.tiny_llama import save_tiny_llama

PROMPTS = ["Hello.", "How do I boil an egg?", "What is 2 + 2?", "Tell me a story about a very long road."]
TABLE = {
    "harmful": {"consult": 1.0, "direct": 0.0},
    "benign_sensitive": {"consult": 0.0, "direct": 1.0},
    "benign_plain": {"consult": 0.0, "direct": 1.0},
}


def experiment(**changes: Any) -> Experiment:
    training = {
        "updates": 2,
        "prompts": {"harmful": 1, "benign_sensitive": 1, "benign_plain": 1},
        "learning_rate": 1e-2,
        "layers": 2,
        "rank": 4,
        "bfloat16": False,
        "watch_every": 1,
    }
    return Experiment.model_validate(
        {
            "rewards": TABLE,
            "training": training | changes,
            "starts": ["mild"],
            "seeds": 1,
            "methods": {"grpo": {}, "ifpo": {"alpha": 1, "forced_consult": 2, "forced_direct": 2}},
            "unseen_per_source": 2,
            "unseen_tokens": 64,
        }
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> RunFolders:
    """Folders with a tiny random model as cold start, and two sources of unseen prompts."""
    root = tmp_path_factory.mktemp("decision")
    save_tiny_llama(root / "cache" / "cold-start-mild" / "merged")
    (root / "cache" / "cold-start-mild" / "run.json").write_text("{}")
    data = root / "data"
    data.mkdir()
    for source, kind in (("one", "harmful"), ("two", "benign_plain")):
        rows = [{"id": f"{source}-{i}", "prompt": text, "kind": kind} for i, text in enumerate(PROMPTS)]
        (data / f"{source}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return RunFolders(root / "results", root / "cache", root / "base", data)


@pytest.fixture(scope="module")
def policy(folders: RunFolders) -> DecisionPolicy:
    return DecisionPolicy(folders.cache / "cold-start-mild" / "merged", layers=2, rank=4)


def randomize_adapter(policy: DecisionPolicy) -> None:
    """Gives the adapter an effect, as training does."""
    policy.reset(0)
    with torch.no_grad():
        for parameter in policy.trainable:
            parameter.normal_(0, 0.3)


def test_tree_attention_gives_the_probabilities_and_gradients_of_separate_prompts(
    policy: DecisionPolicy, tmp_path: Path
) -> None:
    randomize_adapter(policy)
    packed = policy.log_probabilities(policy.encode(PROMPTS, tmp_path))
    separate = torch.stack(
        [
            policy.model(torch.tensor([policy._tokens(prompt)])).logits[0, -1].log_softmax(-1)
            for prompt in PROMPTS
        ]
    )
    torch.testing.assert_close(packed, separate, rtol=1e-4, atol=1e-5)
    gradients = [
        torch.autograd.grad(scores[:, policy.consult_token].sum(), policy.trainable)
        for scores in (packed, separate)
    ]
    for tree, full in zip(*gradients, strict=True):
        torch.testing.assert_close(tree, full, rtol=1e-2, atol=1e-3)


def test_hidden_states_are_computed_once(policy: DecisionPolicy, tmp_path: Path) -> None:
    first = policy.encode(PROMPTS, tmp_path)
    (file,) = tmp_path.glob("*.pt")
    modified = file.stat().st_mtime_ns
    again = policy.encode(PROMPTS, tmp_path)
    assert file.stat().st_mtime_ns == modified
    assert all(torch.equal(a, b) for a, b in zip(first.suffixes, again.suffixes, strict=True))


def test_a_new_adapter_has_no_effect_and_reset_restores_it(policy: DecisionPolicy, tmp_path: Path) -> None:
    encoded = policy.encode(PROMPTS, tmp_path)
    policy.reset(0)
    initial = policy.consult_probabilities(encoded)
    randomize_adapter(policy)
    assert not torch.allclose(policy.consult_probabilities(encoded), initial)
    policy.reset(1)
    torch.testing.assert_close(policy.consult_probabilities(encoded), initial)


def test_an_interrupted_experiment_resumes_and_all_methods_get_the_same_prompts(
    folders: RunFolders,
) -> None:
    lines: list[str] = []
    options: dict[str, Any] = {"starts": ["mild"], "seeds": [0]}
    assert run_experiment("tiny", experiment(), folders, lines.append, methods=["grpo"], **options) == 1
    assert (
        run_experiment("tiny", experiment(), folders, lines.append, methods=["grpo", "ifpo"], **options) == 1
    )
    folder = folders.out / "tiny" / "mild"
    assert sorted(file.name for file in folder.iterdir()) == ["grpo-00.json", "ifpo-00.json", "start.json"]
    grpo, ifpo = (json.loads((folder / f"{name}-00.json").read_text()) for name in ("grpo", "ifpo"))
    others = {name: len(rates) for name, rates in ifpo["unseen"].items() if not name.startswith("own/")}
    assert others == {"one/harmful": 2, "two/benign_plain": 2}
    assert grpo["updates"][0]["consult"] == ifpo["updates"][0]["consult"]
    assert ifpo["updates"][0]["both_modes"] == 1.0
    assert len(lines) == 2
    with pytest.raises(ValueError, match="different settings"):
        run_experiment(
            "tiny", experiment(learning_rate=2e-2), folders, lines.append, methods=["grpo"], **options
        )


def test_a_run_is_reproducible(folders: RunFolders) -> None:
    setup = ExperimentSetup(experiment(), "mild", folders)
    both_modes = Method(alpha=1, forced_consult=2, forced_direct=2)
    first, second = (setup.run(both_modes, seed=3) for _ in range(2))
    assert first["unseen"] == second["unseen"]
    assert setup.run(both_modes, seed=4)["unseen"] != first["unseen"]


def test_split_credit_equals_episode_credit_for_a_single_decision(folders: RunFolders) -> None:
    setup = ExperimentSetup(experiment(), "mild", folders)
    whole, split = (
        setup.run(Method(alpha=1, forced_consult=2, forced_direct=2, credit=credit), seed=0)
        for credit in ("episode", "split")
    )
    for name, rates in whole["unseen"].items():
        np.testing.assert_allclose(split["unseen"][name], rates, atol=1e-3)


def test_training_that_ends_below_the_floor_restores_the_last_state_above_it(folders: RunFolders) -> None:
    setup = ExperimentSetup(experiment(), "mild", folders)
    start = float(setup.policy.consult_probabilities(setup.validation.encoded).mean())
    method = Method(
        cost=100.0, forced_consult=4, forced_direct=4
    )  # the only gradient is away from consulting
    training = experiment(updates=4, floor=start / 2, learning_rate=3e-3).training
    records = train(setup.policy, setup.training, setup.validation, training, method, seed=0)
    assert all("watched" in record for record in records)
    if records[-1]["watched"]["harmful"] < start / 2:
        assert records[-1]["rolled_back"]


def test_summaries_are_means_over_seeds_and_rewards_weigh_harmful_and_harmless_equally() -> None:
    lines = [
        {
            "experiment": "tiny",
            "start": "mild",
            "method": "ifpo",
            "seed": seed,
            "unseen": {
                "one/harmful": 1.0,
                "two/benign_plain": rate,
                "own/harmful": 1.0,
                "own/benign_plain": 0.0,
            },
            "auc": 0.75,
            "own_auc": 1.0,
            "learnt": {"harmful": 1.0},
            "rolled_back": False,
        }
        for seed, rate in enumerate((0.0, 0.5))
    ]
    (entry,) = summarize(lines, {"tiny": experiment()})
    assert entry["rates"]["harmless"][0] == 0.25
    assert entry["reward"][0] == 0.875
    assert entry["own_reward"][0] == 1.0
    assert expected_reward({"one/harmful": 0.5, "two/benign_plain": 0.5}, experiment().rewards) == 0.5
    assert "| ifpo | 2 | 1.00 [1.00, 1.00] | 0.25 [" in format_tables(lines, {"tiny": experiment()})


def test_separation_is_the_area_under_the_curve_with_ties_counted_half() -> None:
    unseen = {
        "one/harmful": [0.9, 0.5],
        "two/benign_plain": [0.5, 0.1],
        "own/harmful": [0.0],
        "own/math": [1.0],
    }
    assert separation(unseen, own=False) == 0.875
    assert separation(unseen, own=True) == 0.0


def test_random_numbers_are_shared_by_all_methods_and_difficulty_averages_out() -> None:
    np.testing.assert_array_equal(random_numbers(1, 2, 3, 8), random_numbers(1, 2, 3, 8))
    assert not np.array_equal(random_numbers(1, 2, 3, 8), random_numbers(1, 2, 4, 8))
    table = experiment().rewards | {
        "harmful": experiment().rewards["harmful"].model_copy(update={"direct": 0.5, "direct_spread": 0.2})
    }
    harmful = [prompt for prompt in training_prompts() if prompt.kind == "harmful"]
    chances = prompt_chances(harmful, table)
    assert chances[:, 0].min() >= 0.3
    assert chances[:, 0].max() <= 0.7
    assert abs(chances[:, 0].mean() - 0.5) < 0.03


def test_training_validation_and_evaluation_prompts_are_disjoint(folders: RunFolders) -> None:
    trained = {prompt.prompt for prompt in training_prompts()}
    assert len(trained) >= 200
    held_out = {prompt.prompt for prompts in held_out_prompts().values() for prompt in prompts}
    assert len(held_out) >= 60
    assert not trained & (held_out | {prompt.prompt for prompt in validation_prompts()})
    measured = source_prompts(folders.data, 3)
    assert [len(prompts) for prompts in measured.values()] == [3, 3]


def test_a_source_is_either_for_training_or_for_evaluation(folders: RunFolders) -> None:
    every = source_prompts(folders.data, 3)
    trained = next(iter(every)).partition("/")[0]
    training = source_prompts(folders.data, 2, only=[trained])
    assert {name.partition("/")[0] for name in training} == {trained}
    assert all(len(prompts) == 2 for prompts in training.values())
    evaluation = source_prompts(folders.data, 3, without=[trained])
    assert set(evaluation) == {name for name in every if not name.startswith(f"{trained}/")} != set()
    with pytest.raises(ValueError, match="has no source 'nowhere' to train on"):
        source_prompts(folders.data, 3, only=[trained, "nowhere"])


def test_the_registered_experiments_can_be_read() -> None:
    registered = read_experiments(REGISTERED)
    assert all(each.seeds >= 10 for each in registered.values())
