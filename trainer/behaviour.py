"""The behaviour policy's log-probabilities: computed where a log holds text alone, checked where it has them.

They are computed once, before the first update, with the checkpoint that sampled. It is an approximation, and
a run's record says so: the server may round differently, and the text may have been tokenised differently.
"""

from __future__ import annotations

from typing import Any

from accelerate.utils import gather_object


def with_behaviour_logprobs(trainer: Any, dataset: Any) -> Any:
    """The dataset with `logprobs` under the trainer's model as it is now, where the log has none."""
    missing = [index for index, known in enumerate(dataset["logprobs"]) if known is None]
    computed = recomputed(trainer, dataset, missing)
    logprobs = [computed.get(index, known) for index, known in enumerate(dataset["logprobs"])]
    return dataset.remove_columns("logprobs").add_column("logprobs", logprobs)


def recomputed(trainer: Any, dataset: Any, indices: list[int]) -> dict[int, list[float]]:
    """(C,) log-probabilities under the trainer's model as it is now, by row; processes share the work."""
    length = {index: len(dataset[index]["prompt_ids"]) + len(dataset[index]["wrote"]) for index in indices}
    order = sorted(indices, key=length.__getitem__)  # of like lengths together, so that little is padding
    size, processes = trainer.args.per_device_train_batch_size, trainer.accelerator.num_processes
    share = order[trainer.accelerator.process_index * size :]
    found: list[tuple[int, list[float]]] = []
    for start in range(0, len(share), size * processes):
        chosen = share[start : start + size]
        found += zip(chosen, trainer.logprobs([dataset[index] for index in chosen]), strict=True)
    return dict(gather_object(found))
