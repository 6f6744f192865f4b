"""Log-probabilities of the behaviour policy: computed where a log has only text, checked where it has them.

They are computed once, before the first update, with the checkpoint that sampled. This is an approximation,
as the run record states: the server may round differently, and the text may have been tokenised differently.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from accelerate.utils import gather_object

from trainer.errors import TrainingError


class Rows(Protocol):
    """Rows of `trainer.stages.logged.dataset.TrainingRows`."""

    @property
    def columns(self) -> dict[str, Any]: ...
    def numbers(self, index: int) -> dict[str, Any]: ...


def check_logprobs(trainer: Any, rows: Rows, sample_size: int, tolerance: float) -> float:
    """Compares logged log-probabilities with those of the trainer's current model.

    Args:
        sample_size: maximum number of episodes to compare, spread evenly over the log.
        tolerance: largest mean difference of an episode, in nats per token.

    Returns:
        The largest mean difference of an episode, in nats per token.

    Raises:
        TrainingError: an episode differs by more than `tolerance`: another checkpoint or temperature sampled,
            or the log-probabilities belong to other episodes.
    """
    logged = np.flatnonzero(rows.columns["has_logprobs"])
    sample = logged[:: max(1, len(logged) // sample_size)][:sample_size].tolist()
    sample.sort(key=lambda index: rows.columns["length"][index])  # batches of similar lengths: less padding
    differences: list[float] = []
    for index, logprobs in zip(sample, compute_logprobs(trainer, rows, sample), strict=True):
        row = rows.numbers(index)
        by_token = [
            abs(computed - given)
            for computed, given, counts in zip(logprobs, row["logprobs"], row["loss_mask"], strict=True)
            if counts
        ]
        differences.append(sum(by_token) / len(by_token))
    largest = max(differences)
    wrong = sum(difference > tolerance for difference in differences)
    if wrong:
        raise TrainingError(
            f"the log's log-probabilities are not this model's: {wrong} of {len(sample)} episodes differ by "
            f"more than {tolerance:g} nats per token, at most {largest:.2f}. Pass the checkpoint that "
            "sampled; if it is, the log-probabilities belong to other episodes or were taken before the "
            "temperature was applied; if another checkpoint sampled on purpose, set behaviour to 'other'"
        )
    return round(largest, 6)


def compute_logprobs(trainer: Any, rows: Rows, order: Sequence[int]) -> Iterator[list[float]]:
    """Yields the (C,) log-probabilities of rows under the trainer's current model, in the given order.

    The processes share the work, a batch each in turn, so all of them must read to the end.
    """
    size, rank = trainer.args.per_device_train_batch_size, trainer.accelerator.process_index
    stride = size * trainer.accelerator.num_processes
    for start in range(0, len(order), stride):
        batch = order[start + rank * size : min(start + (rank + 1) * size, start + stride)]
        yield from gather_object(trainer.logprobs([rows.numbers(index) for index in batch]) if batch else [])
