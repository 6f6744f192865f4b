"""The behaviour policy's log-probabilities: computed where a log holds text alone, checked where it has them.

They are computed once, before the first update, with the checkpoint that sampled. It is an approximation, and
a run's record says so: the server may round differently, and the text may have been tokenised differently.
"""

from __future__ import annotations

from typing import Any

from accelerate.utils import gather_object

from trainer.errors import TrainingError

Rows = list[dict[str, Any]]


def with_behaviour_logprobs(trainer: Any, rows: Rows) -> Rows:
    """The rows with `logprobs` under the trainer's model as it is now, where the log has none."""
    missing = [index for index, row in enumerate(rows) if row["logprobs"] is None]
    computed = _recomputed(trainer, rows, missing)
    return [{**row, "logprobs": computed.get(index, row["logprobs"])} for index, row in enumerate(rows)]


def checked_logprobs(trainer: Any, rows: Rows, most: int, tolerance: float) -> float:
    """Compare logged log-probabilities with the model's own; the largest mean difference of an episode, nats.

    Args:
        most: episodes to look at, spread evenly over the log.

    Raises:
        TrainingError: an episode differs by more than `tolerance`: the log is another checkpoint's, was made
            at another temperature, or its log-probabilities stand with the wrong episodes.
    """
    known = [index for index, row in enumerate(rows) if row["logprobs"] is not None]
    chosen = known[:: max(1, len(known) // most)][:most]
    differences: dict[int, float] = {}
    for index, line in _recomputed(trainer, rows, chosen).items():
        apart = [
            abs(own - logged)
            for own, logged, wrote in zip(line, rows[index]["logprobs"], rows[index]["wrote"], strict=True)
            if wrote
        ]
        differences[index] = sum(apart) / len(apart)
    largest = max(differences.values())
    wrong = sum(difference > tolerance for difference in differences.values())
    if wrong:
        raise TrainingError(
            f"the log's log-probabilities are not this model's: {wrong} of {len(chosen)} episodes differ by "
            f"more than {tolerance:g} nats a token, at most {largest:.2f}. Pass the checkpoint that sampled; "
            "if it is, the log-probabilities stand with the wrong episodes or were taken before the "
            "temperature; if another checkpoint sampled on purpose, set behaviour to 'other'"
        )
    return round(largest, 6)


def _recomputed(trainer: Any, rows: Rows, indices: list[int]) -> dict[int, list[float]]:
    """(C,) log-probabilities under the trainer's model as it is now, by row; processes share the work."""
    # Of like lengths together, so that little is padding.
    order = sorted(indices, key=lambda i: len(rows[i]["prompt_ids"]) + len(rows[i]["completion_ids"]))
    size, processes = trainer.args.per_device_train_batch_size, trainer.accelerator.num_processes
    share = order[trainer.accelerator.process_index * size :]
    found: list[tuple[int, list[float]]] = []
    for start in range(0, len(share), size * processes):
        chosen = share[start : start + size]
        found += zip(chosen, trainer.logprobs([rows[index] for index in chosen]), strict=True)
    return dict(gather_object(found))
