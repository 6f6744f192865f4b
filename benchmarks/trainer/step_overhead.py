"""Measures the overhead of IFPO in a training step, on random weights of SmolLM2-135M's shape.

python -m benchmarks.trainer.step_overhead --rounds 9

All variants are measured alternately in one run:

- a step on logged episodes, and the same step with TRL's scoring of every position;
- a step of plain GRPO on the same tokens (without generation);
- the CPU time of IFPO's advantages and of the replay, as a share of a step.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from trl import GRPOTrainer

from trainer.ifpo import ifpo_advantages
from trainer.stages import silence_libraries
from trainer.stages.logged import drift
from trainer.stages.logged.config import LoggedConfig
from trainer.stages.logged.trainer import LoggedIFPOTrainer, logged_reward


def save_model(folder: Path, layers: int) -> Path:
    """Saves random weights of SmolLM2-135M's shape (which has 30 layers) with the small tokenizer of the
    tests."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.fakes.models.tiny_llama import tiny_tokenizer

    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=49152,
            hidden_size=576,
            intermediate_size=1536,
            num_hidden_layers=layers,
            num_attention_heads=9,
            num_key_value_heads=3,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def generate_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Generates rows like those of the demo: half consult (call, rules, answer), half answer directly."""
    rng = random.Random(seed)
    rows = []
    for index in range(count):
        segments = [(25, 1), (180, 0), (40, 1)] if index % 2 else [(40, 1)]
        wrote = [by_policy for length, by_policy in segments for _ in range(length)]
        rows.append(
            {
                "prompt": "p",
                "completion": "c",
                "prompt_ids": [rng.randrange(300) for _ in range(110)],
                "completion_ids": [rng.randrange(300) for _ in wrote],
                "loss_mask": wrote,
                "logprobs": [-10.8 * by_policy for by_policy in wrote],
                "reward": float(rng.random() < 0.5),
                "advantage": rng.uniform(-1, 1),
                "kind": "harmful" if index % 4 < 2 else "benign_plain",
                "mode": "consult" if index % 2 else "direct",
                "decision": [0, 1],
            }
        )
    return rows


class FullScoringTrainer(LoggedIFPOTrainer):
    """The logged stage with TRL's scoring of every position."""

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
        scored = GRPOTrainer._get_per_token_logps_and_entropies(self, *args, **kwargs)
        self._logps = scored[0].detach()
        return scored


class PlainGRPOTrainer(GRPOTrainer):  # type: ignore[misc]
    """TRL's GRPO on the logged tokens, as if it had sampled them itself."""

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        self._rows = inputs
        return super()._generate_and_score_completions(inputs)

    _generate = LoggedIFPOTrainer._generate


def build_trainer(kind: type, model: Path, out: str, rows: list[dict[str, Any]], micro: int) -> Any:
    from trainer.stages.model_io import adapter_config

    config = LoggedConfig(
        output_dir=out,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=len(rows) // micro,
        max_completion_length=256,
        learning_rate=1e-5,
        model_init_kwargs={"dtype": "float32"},
        off_policy_mask_threshold=0.5,
    )
    rewards = {} if issubclass(kind, LoggedIFPOTrainer) else {"reward_funcs": logged_reward}
    return kind(
        model=str(model),
        args=config,
        train_dataset=datasets.Dataset.from_list(rows),
        peft_config=adapter_config(model, 16, 8),
        **rewards,
    )


class Stepper:
    """Runs optimizer steps of a trainer on the same rows."""

    def __init__(self, trainer: Any, rows: list[dict[str, Any]], micro: int) -> None:
        self.trainer, self.rows, self.micro = trainer, rows, micro
        trainer.create_optimizer()
        trainer.current_gradient_accumulation_steps = len(rows) // micro
        trainer.model.train()

    def step(self) -> float:
        trainer = self.trainer
        start_time = time.perf_counter()
        batch = trainer._generate_and_score_completions(self.rows)
        for start in range(0, len(self.rows), self.micro):
            micro_batch = {
                name: value[start : start + self.micro] if value.dim() else value
                for name, value in batch.items()
            }
            trainer._compute_loss(trainer.model, micro_batch).backward()
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()
        return time.perf_counter() - start_time


def time_steps(steppers: dict[str, Stepper], rounds: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in steppers}
    for stepper in steppers.values():
        stepper.step()  # warm-up
    for number in range(rounds):
        names = list(steppers) if number % 2 else list(reversed(steppers))
        for name in names:
            seconds[name].append(steppers[name].step())
    return seconds


def component_cpu_seconds(stepper: Stepper, rounds: int = 200) -> dict[str, float]:
    """Returns the median CPU seconds per step of IFPO's parts: advantages; replay and drift."""
    trainer = stepper.trainer
    rewards = np.array([row["reward"] for row in stepper.rows])
    modes = np.array([sum(row["loss_mask"]) < len(row["loss_mask"]) for row in stepper.rows])
    groups = np.arange(len(rewards)) // 8
    micro_batch = stepper.rows[: stepper.micro]
    width = max(len(row["loss_mask"]) for row in micro_batch)
    log_ratios = torch.randn(len(micro_batch), width) * 0.1
    kinds = torch.tensor([drift.kind_index(row["kind"]) for row in micro_batch])
    trainer._rows = stepper.rows

    def advantages() -> None:
        ifpo_advantages(rewards, modes, groups)

    def replay() -> None:
        trainer._generate(None)
        trainer._episode_advantages(stepper.rows)
        for _ in range(len(stepper.rows) // stepper.micro):
            drift.divergence(log_ratios.flatten(), trainer.accelerator)
            signs = drift.consult_direction(micro_batch, width)
            drift.decision_drift(log_ratios, signs, kinds, trainer.accelerator)
        trainer._metrics["train"].clear()

    result = {}
    for part in (advantages, replay):
        seconds = []
        for _ in range(rounds):
            start = time.process_time()
            part()
            seconds.append(time.process_time() - start)
        result[part.__name__] = statistics.median(seconds)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--rows", type=int, default=8, help="episodes per step")
    parser.add_argument("--micro", type=int, default=2, help="episodes per micro-batch")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, silence_libraries():
        model = save_model(Path(folder) / "model", options.layers)
        rows = generate_rows(options.rows)
        kinds = {
            "logged": LoggedIFPOTrainer,
            "every position": FullScoringTrainer,
            "plain GRPO": PlainGRPOTrainer,
        }
        steppers = {
            name: Stepper(build_trainer(kind, model, folder, rows, options.micro), rows, options.micro)
            for name, kind in kinds.items()
        }
        seconds = time_steps(steppers, options.rounds)
        cpu_seconds = component_cpu_seconds(steppers["logged"])
    step = {name: statistics.median(values) for name, values in seconds.items()}
    result = {
        "threads": torch.get_num_threads(),
        "rounds": options.rounds,
        "step_seconds": {name: round(value, 3) for name, value in step.items()},
        "spread_seconds": {name: [round(min(v), 3), round(max(v), 3)] for name, v in seconds.items()},
        "logged_to_every_position": round(step["logged"] / step["every position"], 3),
        "logged_to_plain_grpo": round(step["logged"] / step["plain GRPO"], 3),
        "our_cpu_ms": {name: round(1000 * value, 3) for name, value in cpu_seconds.items()},
        "our_share_of_a_step": round(sum(cpu_seconds.values()) / step["logged"], 5),
    }
    if options.json:
        print(json.dumps(result, indent=2))
        return
    for name, value in result.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
