"""Rows of a replay made by hand, and a trainer that holds them, without a log or a command."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any


def rows(count: int = 8, vocabulary: int = 300, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of random tokens and very different lengths, some with a masked stretch in the middle."""
    chance = random.Random(seed)
    made = []
    for index in range(count):
        prompt, first, told, last = (chance.randint(1, 12) for _ in range(4))
        told = told if index % 2 else 0
        wrote = [1] * first + [0] * told + [1] * (last if told else 0)
        made.append(
            {
                "prompt": "p",
                "completion": "c",
                "prompt_ids": [chance.randrange(vocabulary) for _ in range(prompt)],
                "completion_ids": [chance.randrange(vocabulary) for _ in wrote],
                "wrote": wrote,
                "logprobs": [chance.uniform(-6.5, -5.5) * here for here in wrote],
                "reward": float(index % 3 == 0),
                "advantage": chance.uniform(-2, 2),
            }
        )
    return made


def trainer(model: Path, out: Path, made: list[dict[str, Any]], **settings: Any) -> Any:
    """A `LoggedIFPOTrainer` on these rows; full fine-tuning unless `peft_config` is given."""
    import datasets

    from trainer.stages.logged.config import LoggedConfig
    from trainer.stages.logged.trainer import LoggedIFPOTrainer

    peft_config = settings.pop("peft_config", None)
    standard = {"per_device_train_batch_size": len(made), "learning_rate": 1e-2, "max_completion_length": 40}
    return LoggedIFPOTrainer(
        model=str(model),
        args=LoggedConfig(output_dir=str(out), **(standard | settings)),
        train_dataset=datasets.Dataset.from_list(made),
        peft_config=peft_config,
    )
