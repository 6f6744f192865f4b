"""Private parts of TRL 1.16's GRPOTrainer that the trainers rely on; a change there fails here, by name."""

from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import trl
from trl import GRPOTrainer
from trl.trainer.utils import RepeatSampler

from tests.fakes.episodes import logged_rows
from tests.fakes.models.tiny_llama import save_tiny_llama
from trainer.ifpo import ifpo_advantages
from trainer.stages.config import IFPOConfig
from trainer.stages.ifpo_trainer import IFPOTrainer
from trainer.stages.logged.trainer import EpochSampler
from trainer.tokens import consultations_of

CALL = '<tool_call>\n{"name": "consult_safety_rules", "arguments": {}}\n</tool_call>'
# Two prompts, four completions each: text and reward.
SCRIPT = [
    [(CALL, 0.0), (CALL, 1.0), (CALL, 0.0), ("Yes.", 1.0)],
    [(CALL, 1.0), ("No.", 0.0), ("No.", None), ("Yes.", 0.5)],
]


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("_calculate_rewards", ["self", "inputs", "prompts", "completions", "completion_ids_list"]),
        ("_generate", ["self", "prompts"]),
        ("_generate_and_score_completions", ["self", "inputs"]),
        ("_get_train_sampler", ["self", "dataset"]),
        ("_compute_loss", ["self", "model", "inputs"]),
        (
            "_generate_single_turn",
            ["self", "prompt_ids", "images", "multimodal_fields", "num_generations", "has_tool_images"],
        ),
        (
            "_get_per_token_logps_and_entropies",
            [
                *("self", "model", "input_ids", "attention_mask", "logits_to_keep", "batch_size"),
                *("compute_entropy", "compute_aux_loss", "pixel_values", "image_grid_thw", "num_images"),
                *("pixel_attention_mask", "spatial_shapes", "num_tiles", "image_sizes", "token_type_ids"),
                *("mm_token_type_ids", "image_position_ids"),
            ],
        ),
        ("_save_checkpoint", ["self", "model", "trial"]),
        ("_get_output_dir", ["self", "trial"]),
    ],
)
def test_overridden_methods_keep_their_parameters(method: str, parameters: list[str]) -> None:
    assert list(inspect.signature(getattr(GRPOTrainer, method)).parameters) == parameters


def test_the_installed_trl_is_the_version_that_was_reviewed() -> None:
    """Before raising the pin, review this file: it tests every private name that the trainers use."""
    assert trl.__version__.startswith("1.16."), f"TRL {trl.__version__} was never looked at"


def test_the_batch_for_the_loss_has_the_expected_fields(model: Path, tmp_path: Path) -> None:
    replay = logged_rows.make_trainer(model, tmp_path, logged_rows.make_rows(4))
    replay.model.train()
    batch = replay._generate_and_score_completions(list(replay.train_dataset))
    assert set(batch) == {
        *("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "tool_mask"),
        *("advantages", "num_items_in_batch", "old_per_token_logps", "sampling_per_token_logps"),
    }


def losses(replay: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    """Returns the loss of a batch, its mean entropy, and all gradients."""
    replay.model.zero_grad()
    replay.current_gradient_accumulation_steps = 1
    loss = replay._compute_loss(replay.model, batch)
    loss.backward()
    gradients = [p.grad.clone() for p in replay.model.parameters() if p.grad is not None]
    return loss.detach(), torch.tensor(replay._metrics["train"]["entropy"][-1]), gradients


@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_scoring_only_the_policys_tokens_leaves_loss_and_gradient_unchanged(
    beta: float, model: Path, tmp_path: Path
) -> None:
    replay = logged_rows.make_trainer(model, tmp_path, logged_rows.make_rows(6), beta=beta, temperature=0.7)
    replay.model.train()
    batch = replay._generate_and_score_completions(list(replay.train_dataset))
    ours = losses(replay, dict(batch))

    class Plain(type(replay)):  # type: ignore[misc]
        def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
            scored = GRPOTrainer._get_per_token_logps_and_entropies(self, *args, **kwargs)
            self._logps = scored[0].detach()
            return scored

    replay.__class__ = Plain
    plain = losses(replay, replay._generate_and_score_completions(list(replay.train_dataset)))
    torch.testing.assert_close(ours[0], plain[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(ours[1], plain[1], rtol=1e-5, atol=1e-6)
    for mine, theirs in zip(ours[2], plain[2], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_a_micro_batch_in_which_the_policy_wrote_nothing_has_no_loss_and_no_gradient(
    model: Path, tmp_path: Path
) -> None:
    rows = logged_rows.make_rows(2)
    for row in rows:
        row["loss_mask"] = [0] * len(row["loss_mask"])
    replay = logged_rows.make_trainer(model, tmp_path, rows)
    replay.model.train()
    replay.current_gradient_accumulation_steps = 1
    loss = replay._compute_loss(replay.model, replay._generate_and_score_completions(rows))
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad is None or not p.grad.any() for p in replay.model.parameters())


def test_a_micro_batch_of_truncated_and_masked_replies_has_no_loss(model: Path, tmp_path: Path) -> None:
    rows = logged_rows.make_rows(2)
    for row in rows:
        row["completion_ids"][-1] = 5  # not an end token
    replay = logged_rows.make_trainer(model, tmp_path, rows, mask_truncated_completions=True)
    replay.model.train()
    replay.current_gradient_accumulation_steps = 1
    loss = replay._compute_loss(replay.model, replay._generate_and_score_completions(rows))
    loss.backward()
    assert loss.item() == 0


def test_replies_that_end_with_the_templates_token_are_not_truncated(tmp_path: Path) -> None:
    """The tokenizer and the model name another end token than the one that the chat template writes."""
    model = save_tiny_llama(tmp_path / "model", end_token="<|endoftext|>")
    rows = logged_rows.make_rows(2)
    replay = logged_rows.make_trainer(model, tmp_path, rows, mask_truncated_completions=True)
    end = replay.processing_class.convert_tokens_to_ids("<|im_end|>")
    assert end in replay.eos_token_ids
    assert end in replay.generation_config.eos_token_id
    for row in rows:
        row["completion_ids"][-1] = end
    replay.model.train()
    batch = replay._generate_and_score_completions(rows)
    assert batch["completion_mask"].any(1).all()


@pytest.mark.parametrize("loss_type", ["dapo", "grpo", "dr_grpo", "bnpo", "cispo", "sapo", "luspo", "vespo"])
@pytest.mark.parametrize("by_token", [False, True])
def test_every_loss_type_of_trl_takes_a_step_on_a_log(
    by_token: bool, loss_type: str, model: Path, tmp_path: Path
) -> None:
    rows = logged_rows.make_rows(4)
    if by_token:
        for row in rows:
            row["token_advantages"] = [row["advantage"] * (1 + 0.1 * i) for i in range(len(row["loss_mask"]))]
    replay = logged_rows.make_trainer(model, tmp_path, rows, loss_type=loss_type, beta=0.01)
    before = [p.detach().clone() for p in replay.model.parameters()]
    replay.train()
    steps = [entry for entry in replay.state.log_history if "loss" in entry]
    assert [math.isfinite(entry["loss"]) for entry in steps] == [True] * 3
    assert any(not torch.equal(a, b) for a, b in zip(before, replay.model.parameters(), strict=True))
    assert all(p.isfinite().all() for p in replay.model.parameters())


def test_the_sampler_repeats_batches_as_expected() -> None:
    rows = RepeatSampler(list("abcd"), mini_repeat_count=1, batch_size=2, repeat_count=2, shuffle=False)
    assert list(rows) == [0, 1, 0, 1, 2, 3, 2, 3]


def test_the_order_of_an_epoch_is_independent_of_earlier_epochs() -> None:
    def sampler() -> EpochSampler:
        return EpochSampler(list(range(32)), mini_repeat_count=1, batch_size=4, repeat_count=1, seed=5)

    orders = []
    walked = sampler()
    for epoch in range(3):
        walked.set_epoch(epoch)
        orders.append(list(walked))
    resumed = sampler()
    resumed.set_epoch(2)
    assert list(resumed) == orders[2]
    assert len({tuple(order) for order in orders}) == 3


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("tiny"))


def step(trainer_class: type, model: Path, out: Path, **settings: Any) -> Any:
    """Returns a trainer, and its output for one scripted batch that went through TRL's code."""

    def reward(prompts: list[Any], completions: list[Any], **_: Any) -> list[float | None]:
        return [value for group in SCRIPT for _, value in group]

    trainer = trainer_class(
        model=str(model),
        reward_funcs=reward,
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
    texts = [text for group in SCRIPT for text, _ in group]
    trainer._generate = lambda prompts: (
        [tokenizer.encode(prompt) for prompt in prompts],
        [tokenizer.encode(text) for text in texts],
        None,
        texts,
        None,
        {},
        None,
        None,
    )
    rows = [{"prompt": prompt} for prompt in ("one", "two") for _ in range(4)]
    trainer.model.train()
    output = trainer._generate_and_score_completions(rows)
    return trainer, output


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_with_alpha_zero_the_trainer_keeps_trls_advantages(scale: str, model: Path, tmp_path: Path) -> None:
    plain = step(GRPOTrainer, model, tmp_path, scale_rewards=scale)[1]["advantages"]
    ours = step(IFPOTrainer, model, tmp_path, scale_rewards=scale, alpha=0.0, baseline="group")[1][
        "advantages"
    ]
    torch.testing.assert_close(ours, plain, rtol=1e-6, atol=1e-6)


def test_the_trainer_uses_and_logs_ifpo_advantages(model: Path, tmp_path: Path) -> None:
    trainer, output = step(IFPOTrainer, model, tmp_path)
    scored = [0, 1, 2, 3, 4, 5, 7]  # the sixth completion has no reward
    rewards = [value for group in SCRIPT for _, value in group]
    modes = [text == CALL for group in SCRIPT for text, _ in group]
    expected = torch.zeros(8)
    expected[scored] = torch.tensor(
        ifpo_advantages(
            [float(rewards[i] or 0) for i in scored], [modes[i] for i in scored], [i // 4 for i in scored]
        ),
        dtype=torch.float32,
    )
    torch.testing.assert_close(output["advantages"], expected)
    assert list(trainer._logs["advantages"]) == output["advantages"].tolist()
    assert trainer._metrics["train"]["ifpo/consult_rate"] == [0.5]


def test_the_cost_is_subtracted_per_consultation_before_grpos_advantages(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "trainer.stages.ifpo_trainer.consultations_of", lambda messages: 2 * consultations_of(messages)
    )
    _, output = step(IFPOTrainer, model, tmp_path, alpha=0.0, cost=0.3)
    scored = [0, 1, 2, 3, 4, 5, 7]
    entries = [entry for group in SCRIPT for entry in group]
    paid = [float(value or 0) - 0.3 * 2 * (text == CALL) for text, value in entries]
    expected = torch.zeros(8, dtype=torch.float64)
    expected[scored] = torch.tensor(
        ifpo_advantages([paid[i] for i in scored], [0] * 7, [i // 4 for i in scored], alpha=0)
    )
    torch.testing.assert_close(output["advantages"], expected.float())


def test_the_cost_is_charged_only_where_direct_completions_earned_as_much(
    model: Path, tmp_path: Path
) -> None:
    """The direct completion of the first prompt earned more, those of the second less."""
    paid, plain, partly = (
        step(IFPOTrainer, model, tmp_path, alpha=0.0, **settings)[1]["advantages"]
        for settings in ({"cost": 0.3}, {}, {"cost": 0.3, "consult_cost_where": "direct_as_good"})
    )
    torch.testing.assert_close(partly[:4], paid[:4])
    torch.testing.assert_close(partly[4:], plain[4:])
    assert not torch.equal(paid[4:], plain[4:])


def test_several_reward_functions_are_refused(model: Path, tmp_path: Path) -> None:
    def reward(completions: list[Any], **_: Any) -> list[float]:
        return [0.0] * len(completions)

    with pytest.raises(ValueError, match="one composed reward function"):
        IFPOTrainer(
            model=str(model),
            reward_funcs=[reward, reward],
            args=IFPOConfig(output_dir=str(tmp_path)),
            train_dataset=datasets.Dataset.from_dict({"prompt": ["one"]}),
        )
