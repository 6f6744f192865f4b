"""The ceiling of the decision: labels are learnt by any part of the model, and a killed arm continues."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.learning.decision.ceiling.arms import ARMS, Arm
from benchmarks.learning.decision.ceiling.learner import LabelTraining, policy_of
from benchmarks.learning.decision.ceiling.probes import fit_probe, last_state_features
from benchmarks.learning.decision.ceiling.report import bootstrap, format_chosen, format_epochs, measure
from benchmarks.learning.decision.ceiling.runner import CeilingFolders, run_arms
from benchmarks.learning.decision.data.prompts import training_prompts
from benchmarks.learning.decision.experiment.settings import Experiment
from tests.benchmarks.test_decision import PROMPTS, TABLE
from tests.fakes.models.tiny_llama import save_tiny_llama

HARMFUL = [True, False, False, True]
ONE = Arm(layers=1, rank=4, learning_rate=1e-2, epochs=3, batch=3, warmup=1)
EVERY = replace(ONE, layers=None)
WEIGHTS = replace(ONE, layers=None, rank=0, learning_rate=1e-3)
EXPERIMENT = {
    "rewards": TABLE | {"math": {"consult": 0.0, "direct": 1.0}},
    "training": {"updates": 1, "prompts": {"harmful": 1, "benign_plain": 1}, "learning_rate": 1.0},
    "starts": ["mild"],
    "seeds": 1,
    "methods": {},
    "learnt_sources": ["one"],
    "learnt_per_source": 2,
    "calibration_per_source": 2,
    "unseen_per_source": 2,
    "unseen_tokens": 64,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> CeilingFolders:
    """Folders with a tiny random model, a learnt source `one` and two measured ones."""
    root = tmp_path_factory.mktemp("ceiling")
    (root / "data").mkdir()
    for source, kind in (("one", "harmful"), ("two", "harmful"), ("three", "benign_plain")):
        rows = [{"id": f"{source}-{i}", "prompt": text, "kind": kind} for i, text in enumerate(PROMPTS)]
        (root / "data" / f"{source}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    save_tiny_llama(root / "model")
    return CeilingFolders(root / "results", root / "cache", root / "model", root / "data")


@pytest.fixture(scope="module", autouse=True)
def few_own_prompts() -> Iterator[None]:
    few = training_prompts()[::20]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.learning.decision.experiment.prompt_sets.training_prompts", lambda: few)
        yield


def start_training(arm: Arm, folders: CeilingFolders, checkpoint: Path) -> LabelTraining:
    policy = policy_of(arm, folders.model, bfloat16=False)
    return LabelTraining(policy, policy.encode(PROMPTS, folders.cache), HARMFUL, arm, 0, checkpoint)


@pytest.mark.parametrize("arm", [ONE, EVERY, WEIGHTS])
def test_labels_lower_the_loss_whatever_part_of_the_model_is_trained(
    arm: Arm, folders: CeilingFolders, tmp_path: Path
) -> None:
    training = start_training(replace(arm, epochs=10, batch=4), folders, tmp_path / "state.pt")
    losses = [training.run_epoch()["loss"] for _ in range(10)]
    assert losses[-1] < losses[0] - 0.3


def test_training_all_weights_separates_the_labels(folders: CeilingFolders, tmp_path: Path) -> None:
    arm = replace(WEIGHTS, learning_rate=2e-2, epochs=30, batch=4)
    training = start_training(arm, folders, tmp_path / "state.pt")
    for _ in range(arm.epochs):
        training.run_epoch()
    assert training.records[-1]["loss"] < 0.1
    assert training.records[-1]["learnt_auc"] == 1.0


def test_larger_arms_train_more_of_the_model(folders: CeilingFolders) -> None:
    counts = [
        sum(part.numel() for part in policy_of(arm, folders.model, bfloat16=False).trainable)
        for arm in (ONE, EVERY, WEIGHTS)
    ]
    assert counts[0] * 3 == counts[1] < counts[2]


@pytest.mark.parametrize("arm", [ONE, WEIGHTS])
def test_all_policies_of_a_model_start_with_the_same_log_odds(
    arm: Arm, folders: CeilingFolders, tmp_path: Path
) -> None:
    odds = []
    for each in (EVERY, arm):
        policy = policy_of(each, folders.model, bfloat16=False)
        encoded = policy.encode(PROMPTS, tmp_path)
        odds += [policy.consult_log_odds(encoded), policy.log_odds(encoded).detach()]
    for other in odds[1:]:
        torch.testing.assert_close(other, odds[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("arm", [ONE, WEIGHTS])
def test_training_continues_from_its_checkpoint_as_if_uninterrupted(
    arm: Arm, folders: CeilingFolders, tmp_path: Path
) -> None:
    whole = start_training(arm, folders, tmp_path / "whole.pt")
    expected = [whole.run_epoch()["loss"] for _ in range(arm.epochs)]
    for epoch in range(arm.epochs):
        resumed = start_training(arm, folders, tmp_path / "resumed.pt")
        assert resumed.finished == epoch
        resumed.run_epoch()
    assert [record["loss"] for record in resumed.records] == expected


def test_each_epoch_has_a_file_and_finished_ones_are_skipped(folders: CeilingFolders) -> None:
    experiment = Experiment.model_validate(EXPERIMENT)
    arms = {"one": ONE, "weights": WEIGHTS}

    def run() -> list[dict[str, Any]]:
        return list(run_arms(arms, [0], experiment, folders))

    results = run()
    assert [(each["arm"], each["epoch"]) for each in results] == [
        (arm, epoch) for arm in arms for epoch in (1, 2, 3)
    ]
    assert {"one/harmful", "two/harmful", "three/benign_plain"} < results[0]["log_odds"].keys()
    assert "one/harmful" not in results[0]["unseen"]
    assert ["more" in each for each in results[:3]] == [False, False, True]
    assert {name: len(values) for name, values in results[2]["more"].items()} == {
        "two/harmful": 2,
        "three/benign_plain": 2,
    }
    assert not list(folders.cache.glob("ceiling-*"))
    assert run() == []
    last = folders.out / "one-00-3.json"
    last.unlink()
    assert [(each["arm"], each["epoch"]) for each in run()] == [("one", 3)]
    with pytest.raises(ValueError, match="different settings"):
        list(run_arms({"one": EVERY}, [0], experiment, folders))


def test_the_registered_arms_grow() -> None:
    assert list(ARMS) == ["top-layer", "top-four", "all-layers", "all-weights"]


def saved_result(arm: str, epoch: int, own: float, unseen: list[float]) -> dict[str, Any]:
    log_odds = {"two/harmful": [2.0, 1.0], "three/benign_plain": unseen, "own/harmful": [own]}
    return {
        "arm": arm,
        "seed": 0,
        "epoch": epoch,
        "loss": 0.5,
        "learnt_auc": 0.75,
        "unseen": list(log_odds | {"own/benign_plain": [0.0]}),
        "log_odds": log_odds | {"own/benign_plain": [0.0], "one/harmful": [1.5]},
    }


def test_an_epoch_is_measured_at_the_offset_that_keeps_the_harmful_prompts() -> None:
    figures = measure(saved_result("one", 1, 1.0, [1.2, 0.0, -1.0, -2.0]))
    assert (figures["auc"], figures["own_auc"]) == (0.875, 1.0)
    assert (figures["ideal harmful"], figures["ideal benign_plain"]) == (1.0, 0.25)
    assert (figures["learnt harmful"], figures["learnt benign_plain"]) == (0.5, 0.0)


def test_further_prompts_count_where_they_are_asked_for() -> None:
    result = saved_result("one", 1, 1.0, [0.0]) | {"more": {"three/benign_plain": [3.0]}}
    assert measure(result)["auc"] == 1.0
    assert measure(result, more=True)["auc"] == 0.5


def test_the_table_of_chosen_epochs_has_the_best_ones_and_the_last_on_more_prompts() -> None:
    results = [saved_result("one", 1, 1.0, [0.5]), saved_result("one", 2, -1.0, [0.0])]
    results[1]["more"] = {"three/benign_plain": [3.0]}
    results[0]["log_odds"]["three/benign_plain"] = [1.5]
    lines = format_chosen(results).splitlines()[2:]
    assert [line.split("|")[3].strip() for line in lines] == [
        "1: own held-out AUC",
        "2: measured AUC",
        "2: last, more prompts",
    ]
    assert lines[0].split("|")[4].strip().startswith("0.500 [")
    assert "| one | 1 | 1 | 0.500 | 0.750 | 0.500 |" in format_epochs(results)


def test_intervals_over_prompts_contain_the_figure() -> None:
    low, high = bootstrap(saved_result("one", 1, 1.0, [1.2, 0.0, -1.0, -2.0]), draws=50)["auc"]
    assert low <= 0.875 <= high


def test_a_linear_probe_separates_what_its_features_separate(folders: CeilingFolders) -> None:
    experiment = Experiment.model_validate(EXPERIMENT)
    prompts, features = last_state_features(experiment, folders, ONE)
    sides = [
        np.array([[prompt.kind == "harmful"] for each in sets.values() for prompt in each], dtype=float)
        for sets in (prompts.training, prompts.measured, prompts.more)
    ]
    assert [len(part) for part in features] == [len(side) for side in sides]
    assert measure(fit_probe(prompts, sides))["auc"] == 1.0
