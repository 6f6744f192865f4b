"""What we rely on in TRL 1.16's GRPOTrainer; a change there fails here, by name."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from trl import GRPOTrainer
from trl.trainer.utils import RepeatSampler

from tests.fakes.tiny_llama import save_tiny_llama
from trainer.config import IFPOConfig
from trainer.grpo import IFPOTrainer
from trainer.ifpo import ifpo_advantages

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
    ],
)
def test_the_methods_that_we_override_keep_their_parameters(method: str, parameters: list[str]) -> None:
    assert list(inspect.signature(getattr(GRPOTrainer, method)).parameters) == parameters


def test_the_sampler_repeats_as_we_use_it() -> None:
    rows = RepeatSampler(list("abcd"), mini_repeat_count=1, batch_size=2, repeat_count=2, shuffle=False)
    assert list(rows) == [0, 1, 0, 1, 2, 3, 2, 3]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("tiny"))


def step(trainer_class: type, model: Path, out: Path, **settings: Any) -> Any:
    """A trainer that has generated and scored one batch by the script, through TRL's own code."""

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
def test_with_alpha_zero_the_trainer_hands_over_trls_own_advantages(
    scale: str, model: Path, tmp_path: Path
) -> None:
    plain = step(GRPOTrainer, model, tmp_path, scale_rewards=scale)[1]["advantages"]
    ours = step(IFPOTrainer, model, tmp_path, scale_rewards=scale, alpha=0.0, baseline="group")[1][
        "advantages"
    ]
    torch.testing.assert_close(ours, plain, rtol=1e-6, atol=1e-6)


def test_the_trainer_hands_over_and_logs_ifpos_advantages(model: Path, tmp_path: Path) -> None:
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
