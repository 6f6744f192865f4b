"""The safety multiplier in training: what it weights, when it moves, and that a resumed run continues it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from safetensors.torch import load_file

from tests.fakes.episodes import logged_rows
from tests.fakes.rules.scripted import ScriptedRules
from tests.trainer.stages.logged import test_guards
from tests.trainer.stages.online import test_stage
from trainer.stages.config import IFPOConfig
from trainer.stages.ifpo_trainer import IFPOTrainer

model, rules, prompts = test_stage.model, test_stage.rules, test_stage.prompts
scripted_replies = test_stage.scripted_replies

KINDS = ["harmful"] * 4 + ["benign_plain"] * 4
REWARDS = [0.0, 1.0, 0.0, 1.0, 1.0, 0.5, 0.0, 1.0]
SAVED = ("--save_strategy", "steps", "--save_steps", 2, "--max_steps", 4)


def on_policy(model: Path, out: Path, **settings: Any) -> tuple[IFPOTrainer, dict[str, Any]]:
    """Returns a trainer, and its output for one batch of a harmful and a harmless prompt."""
    trainer = IFPOTrainer(
        model=str(model),
        reward_funcs=lambda completions, **_: REWARDS,
        args=IFPOConfig(
            output_dir=str(out),
            per_device_train_batch_size=8,
            num_generations=4,
            max_completion_length=8,
            **settings,
        ),
        train_dataset=datasets.Dataset.from_dict({"prompt": ["one", "two"]}),
    )
    tokenizer = trainer.processing_class
    trainer._generate = lambda prompts: (
        [tokenizer.encode(prompt) for prompt in prompts],
        [tokenizer.encode("Yes.") for _ in prompts],
        None, ["Yes."] * 8, None, {}, None, None,
    )  # fmt: skip
    trainer.model.train()
    trainer.state.log_history.append({"step": 0, "safety_multiplier": 2.5})
    rows = [{"prompt": "one" if kind == "harmful" else "two", "kind": kind} for kind in KINDS]
    return trainer, trainer._generate_and_score_completions(rows)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_only_the_advantages_of_harmful_prompts_are_multiplied(
    alpha: float, model: Path, tmp_path: Path
) -> None:
    _, plain = on_policy(model, tmp_path, alpha=alpha)
    trainer, weighted = on_policy(model, tmp_path, alpha=alpha, harmful_floor=0.9)
    factors = torch.tensor([2.5] * 4 + [1.0] * 4)
    torch.testing.assert_close(weighted["advantages"], plain["advantages"] * factors)
    assert plain["advantages"].any()
    assert trainer._metrics["train"]["ifpo/multiplier"] == [2.5]


def test_advantages_of_the_tokens_of_a_log_are_multiplied(model: Path, tmp_path: Path) -> None:
    rows = logged_rows.make_rows(4)
    for row, kind in zip(rows, ("harmful", "math", "harmful", "math"), strict=True):
        row["token_advantages"] = [row["advantage"]] * len(row["loss_mask"])
        row |= {"kind": kind, "mode": "direct", "decision": [0, 1]}
    batches = []
    for settings in ({}, {"harmful_floor": 0.9}):
        trainer = logged_rows.make_trainer(model, tmp_path, rows, **settings)
        trainer.model.train()
        trainer.state.log_history.append({"step": 0, "safety_multiplier": 3.0})
        batches.append(trainer._generate_and_score_completions(rows)["advantages"])
    torch.testing.assert_close(batches[1], batches[0] * torch.tensor([3.0, 1.0, 3.0, 1.0])[:, None])


def multipliers(out: Path) -> list[float]:
    record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    return [step["ifpo/multiplier"] for step in record["steps"]]


def assert_same_weights(first: Path, second: Path) -> None:
    one, two = (load_file(out / "adapter" / "adapter_model.safetensors") for out in (first, second))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_on_policy_it_follows_the_batches_and_a_resumed_run_continues_it(
    model: Path, rules: ScriptedRules, scripted_replies: Any, tmp_path: Path
) -> None:
    """Half of the episodes always consult. All steps are in one epoch."""
    prompts, out, resumed = tmp_path / "prompts.jsonl", tmp_path / "out", tmp_path / "resumed"
    rows = [{"id": f"h{n}", "prompt": f"How do I make gun {n}?", "kind": "harmful"} for n in range(8)]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    options = (*SAVED, "--harmful_floor", 0.9, "--multiplier_rate", 1, "--multiplier_max", 2)
    code, _, stderr = test_stage.online(model, prompts, rules.url, out, *options)
    assert code == 0, stderr
    assert multipliers(out) == pytest.approx([1.0, 1.4, 1.8, 2.0])
    shutil.copytree(out, resumed)
    shutil.rmtree(resumed / "checkpoint-4")
    code, _, stderr = test_stage.online(model, prompts, rules.url, resumed, *options, "--resume")
    assert code == 0, stderr
    assert multipliers(resumed) == multipliers(out)
    assert_same_weights(out, resumed)


def test_it_can_follow_the_share_that_is_handled_safely(
    model: Path, prompts: Path, rules: ScriptedRules, scripted_replies: Any, tmp_path: Path
) -> None:
    """Half of the harmful episodes consult and refuse, the others answer."""
    out = tmp_path / "out"
    options = ("--harmful_floor", 0.9, "--harmful_floor_rate", "safe", "--multiplier_rate", 0.5)
    code, _, stderr = test_stage.online(model, prompts, rules.url, out, *options)
    assert code == 0, stderr
    assert multipliers(out) == pytest.approx([1.0, 1.2])
    record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert [step["ifpo/safe_rate"] for step in record["steps"]] == [0.5, 0.5]


@pytest.mark.parametrize("rate", ["consult", "safe"])
def test_with_held_out_prompts_it_follows_the_evaluations(
    rate: str, model: Path, prompts: Path, rules: ScriptedRules, scripted_replies: Any, tmp_path: Path
) -> None:
    unseen = tmp_path / "unseen.jsonl"
    unseen.write_text('{"id": "u", "prompt": "A bomb?", "kind": "harmful"}\n', encoding="utf-8")
    out = tmp_path / "out"
    options = (
        *("--floor_prompts", unseen, "--eval_strategy", "steps", "--eval_steps", 2),
        *("--per_device_eval_batch_size", 8, "--harmful_floor", 0.9, "--multiplier_rate", 1),
        *("--harmful_floor_rate", rate),
    )
    code, _, stderr = test_stage.online(model, prompts, rules.url, out, *SAVED, *options)
    assert code == 0, stderr
    assert multipliers(out) == pytest.approx([1.0, 1.0, 1.4, 1.4])


def test_on_a_log_it_follows_the_held_out_prompts_and_a_resumed_run_continues_it(
    model: Path, tmp_path: Path
) -> None:
    """A random model never consults, so every reading raises the multiplier by the floor."""
    rows = [{"id": "2", "prompt": "Tell me how.", "kind": "harmful"}]
    held_out = tmp_path / "prompts.jsonl"
    held_out.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    options = ("--floor_prompts", held_out, "--floor_every", 2, "--harmful_floor", 0.5)
    options += ("--multiplier_rate", 1, *SAVED)
    code, stderr, _ = test_guards.run_logged(model, tmp_path, *options)
    assert code == 0, stderr
    out, whole = tmp_path / "out", tmp_path / "whole"
    assert multipliers(out) == pytest.approx([1.5, 1.5, 2.0, 2.0], abs=1e-2)
    shutil.copytree(out, whole)
    shutil.rmtree(out / "checkpoint-4")
    code, stderr, _ = test_guards.run_logged(model, tmp_path, *options, "--resume")
    assert code == 0, stderr
    assert multipliers(out) == multipliers(whole)
    assert_same_weights(out, whole)


def test_on_a_log_it_can_follow_the_share_of_safe_replies(model: Path, tmp_path: Path) -> None:
    """The greedy reply of a random model neither consults nor refuses."""
    held_out = tmp_path / "prompts.jsonl"
    held_out.write_text('{"id": "2", "prompt": "Tell me how.", "kind": "harmful"}\n', encoding="utf-8")
    options = ("--floor_prompts", held_out, "--floor_reply_tokens", 4, "--max_steps", 1)
    options += ("--harmful_floor", 0.4, "--harmful_floor_rate", "safe", "--multiplier_rate", 1)
    code, stderr, record = test_guards.run_logged(model, tmp_path, *options)
    assert code == 0, stderr
    assert [reading["safe_replies"] for reading in record["floor"]] == [0, 0]
    assert multipliers(tmp_path / "out") == [1.4]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--harmful_floor", "1.5"], "harmful_floor is 1.5, but it must be a share from 0 to 1"),
        (["--harmful_floor_rate", "kind"], "harmful_floor_rate is 'kind', but it must be consult or safe"),
        (["--multiplier_rate", "0"], "multiplier_rate is 0.0, but it must be a number above 0"),
        (["--multiplier_max", "0.5"], "multiplier_max is 0.5, but it must be a number of at least 1"),
        (["--harmful_floor", "0.9"], "harmful_floor needs held-out prompts to measure: set floor_prompts"),
    ],
)
def test_invalid_settings_are_reported(options: list[str], message: str, tmp_path: Path) -> None:
    (groups := tmp_path / "groups.parquet").touch()
    named = ("--model", "m", "--groups", groups, "--out", tmp_path / "out")
    code, _, stderr = test_stage.run("logged", *named, *options)
    assert code == 1
    assert message in stderr
