"""Log-probabilities of the behaviour policy: computed where a log has only text, checked where it has them.

They are computed once, before the first update, with the checkpoint that sampled. This is an approximation,
and the run record says so: the server may round differently, and the text may have been tokenised
differently.
"""

from __future__ import annotations

from typing import Any

from accelerate.utils import gather_object

from trainer.errors import TrainingError

Rows = list[dict[str, Any]]


def add_behaviour_logprobs(trainer: Any, rows: Rows) -> Rows:
    """Returns the rows with `logprobs` under the trainer's current model where they are None."""
    missing = [index for index, row in enumerate(rows) if row["logprobs"] is None]
    computed = _compute_logprobs(trainer, rows, missing)
    return [{**row, "logprobs": computed.get(index, row["logprobs"])} for index, row in enumerate(rows)]


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
    logged = [index for index, row in enumerate(rows) if row["logprobs"] is not None]
    sample = logged[:: max(1, len(logged) // sample_size)][:sample_size]
    differences: list[float] = []
    for index, logprobs in _compute_logprobs(trainer, rows, sample).items():
        row = rows[index]
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


def _compute_logprobs(trainer: Any, rows: Rows, indices: list[int]) -> dict[int, list[float]]:
    """(C,) log-probabilities under the trainer's current model by row index; processes share the work."""
    # Batches of similar lengths need little padding.
    order = sorted(indices, key=lambda i: len(rows[i]["prompt_ids"]) + len(rows[i]["completion_ids"]))
    size, processes = trainer.args.per_device_train_batch_size, trainer.accelerator.num_processes
    share = order[trainer.accelerator.process_index * size :]
    computed: list[tuple[int, list[float]]] = []
    for start in range(0, len(share), size * processes):
        batch = share[start : start + size]
        computed += zip(batch, trainer.logprobs([rows[index] for index in batch]), strict=True)
    return dict(gather_object(computed))
