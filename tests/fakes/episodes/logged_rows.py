"""Builds random training rows and a trainer for them, without a log or a command."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any


def make_rows(count: int = 8, vocabulary: int = 300, seed: int = 0) -> list[dict[str, Any]]:
    """Builds rows of random tokens with varying lengths, half of them with a masked span in the middle."""
    rng = random.Random(seed)
    rows = []
    for index in range(count):
        prompt, first, masked, last = (rng.randint(1, 12) for _ in range(4))
        masked = masked if index % 2 else 0
        loss_mask = [1] * first + [0] * masked + [1] * (last if masked else 0)
        rows.append(
            {
                "prompt": "p",
                "completion": "c",
                "prompt_ids": [rng.randrange(vocabulary) for _ in range(prompt)],
                "completion_ids": [rng.randrange(vocabulary) for _ in loss_mask],
                "loss_mask": loss_mask,
                "logprobs": [rng.uniform(-6.5, -5.5) * weight for weight in loss_mask],
                "reward": float(index % 3 == 0),
                "advantage": rng.uniform(-2, 2),
            }
        )
    return rows


def make_trainer(model: Path, out: Path, rows: list[dict[str, Any]], **settings: Any) -> Any:
    """Creates a `LoggedIFPOTrainer` for the rows. Fine-tunes all weights unless `peft_config` is set."""
    import datasets

    from trainer.stages.logged.config import LoggedConfig
    from trainer.stages.logged.trainer import LoggedIFPOTrainer

    peft_config = settings.pop("peft_config", None)
    standard = {"per_device_train_batch_size": len(rows), "learning_rate": 1e-2, "max_completion_length": 40}
    return LoggedIFPOTrainer(
        model=str(model),
        args=LoggedConfig(output_dir=str(out), **(standard | settings)),
        train_dataset=datasets.Dataset.from_list(rows),
        peft_config=peft_config,
    )
