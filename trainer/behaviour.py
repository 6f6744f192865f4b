"""The behaviour policy's log-probabilities where a log holds text alone.

They are computed once, before the first update, with the checkpoint that sampled. It is an approximation, and
a run's record says so: the server may round differently, and the text may have been tokenised differently.
"""

from __future__ import annotations

from typing import Any

import torch


def with_behaviour_logprobs(trainer: Any, dataset: Any) -> Any:
    """The dataset with `logprobs` under the trainer's model as it is now, where the log has none."""
    size = trainer.args.per_device_train_batch_size
    order = sorted(
        range(len(dataset)), key=lambda i: len(dataset[i]["prompt_ids"]) + len(dataset[i]["wrote"])
    )
    logprobs: list[list[float]] = [[]] * len(dataset)
    trainer.model.eval()
    for start in range(0, len(order), size):  # of like lengths together, so that little is padding
        chosen = order[start : start + size]
        rows = [dataset[index] for index in chosen]
        batch = _padded(rows, trainer.processing_class.pad_token_id)
        with torch.no_grad():
            scores, _, _ = trainer._get_per_token_logps_and_entropies(
                trainer.model,
                *(part.to(trainer.accelerator.device) for part in batch),
                logits_to_keep=max(len(row["completion_ids"]) for row in rows),
            )
        for index, row, line in zip(chosen, rows, scores.cpu().tolist(), strict=True):
            logprobs[index] = row["logprobs"] or line[: len(row["completion_ids"])]
    trainer.model.train()
    return dataset.remove_columns("logprobs").add_column("logprobs", logprobs)


def _padded(rows: list[dict[str, Any]], pad: int) -> tuple[Any, Any]:
    """Ids and attention mask, (B, P+C) each: prompts padded on the left, completions on the right."""
    prompt = max(len(row["prompt_ids"]) for row in rows)
    completion = max(len(row["completion_ids"]) for row in rows)
    ids = torch.full((len(rows), prompt + completion), pad)
    mask = torch.zeros_like(ids)
    for line, row in enumerate(rows):
        tokens = torch.tensor(row["prompt_ids"] + row["completion_ids"])
        start = prompt - len(row["prompt_ids"])
        ids[line, start : start + len(tokens)] = tokens
        mask[line, start : start + len(tokens)] = 1
    return ids, mask
