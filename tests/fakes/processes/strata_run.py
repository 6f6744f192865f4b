"""Runs a trainer with stratified groups on a policy of few tokens, in one or several processes.

    python -m tests.fakes.processes.strata_run sample|train FOLDER

`sample` scores batches of replies from a vLLM server, `train` learns from scripted replies. The folder holds
`model/`, and `run.json` with settings; each process writes `RANK.json`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import datasets
from trl import GRPOTrainer

from tests.fakes.models.few_tokens import ANSWER, CALL, END, NAME
from trainer.stages.online.config import OnlineConfig
from trainer.stages.online.strata.call_opening import CallOpening
from trainer.stages.online.strata.trainer import StratifiedIFPOTrainer


def reward(completions: list[str], **_: Any) -> list[float]:
    return [0.5 + 0.4 * ("consult_safety_rules" in text) + 0.01 * len(text) for text in completions]


def make_trainer(folder: Path, run: dict[str, Any]) -> StratifiedIFPOTrainer:
    trainer = StratifiedIFPOTrainer(
        model=str(folder / "model"),
        reward_funcs=reward,
        args=OnlineConfig(output_dir=str(folder / "out"), use_cpu=True, **run["settings"]),
        train_dataset=datasets.Dataset.from_dict({"prompt": ["prompt"] * 4}),
    )
    trainer.opening = CallOpening(**run["opening"])
    return trainer


def sample(trainer: StratifiedIFPOTrainer, batches: int) -> dict[str, Any]:
    """Returns the replies of several batches, their log-probabilities and their ratios."""
    trainer.model.train()
    trainer._is_checked = True  # few episodes do not disprove the probabilities
    size = trainer.args.per_device_train_batch_size
    rows: list[dict[str, Any]] = []
    for _ in range(batches):
        output = trainer._generate_and_score_completions([{"prompt": "prompt"}] * size)
        keys = ("completion_ids", "completion_mask", "importance_sampling_ratio", "advantages")
        columns = zip(trainer._forced or [None] * size, *(output[key].tolist() for key in keys), strict=True)
        rows += [dict(zip(("forced", *keys), row, strict=True)) for row in columns]
    return {
        "rows": rows,
        "metrics": {name: list(values) for name, values in trainer._metrics["train"].items()},
    }


def scripted(self: Any, prompt_ids: Any, *args: Any, **kwargs: Any) -> tuple[Any, None]:
    """Replies that depend on the step and on the place among those of all processes."""
    first = self.accelerator.process_index * len(prompt_ids)
    replies = []
    for place in range(first, first + len(prompt_ids)):
        forced = place % self.num_generations
        consults = forced < 2 if forced < 4 else (7 * self.state.global_step + 3 * place) % 5 < 3
        replies.append([CALL, NAME, END] if consults else [ANSWER, END])
    return replies, None


def main() -> None:
    verb, folder = sys.argv[1], Path(sys.argv[2])
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    trainer = make_trainer(folder, run)
    if verb == "sample":
        result = sample(trainer, run["batches"])
    else:
        GRPOTrainer._generate_single_turn = scripted
        trainer.train()
        head = trainer.accelerator.unwrap_model(trainer.model).lm_head.weight
        result = {"head": head.tolist(), "metrics": trainer.state.log_history}
    rank = trainer.accelerator.process_index
    (folder / f"{rank}.json").write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
