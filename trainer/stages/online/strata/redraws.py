"""Dynamic sampling: groups that do not compare the modes are replaced by groups of other prompts.

A group compares the modes if its rated episodes hold both and do not all have the same reward. Groups are
drawn until there are enough of these for an update, or `max_draws` is reached; then others fill the batch. A
prompt about which the policy is certain, or whose episodes all have the same reward, is therefore trained on
less often.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

Output = dict[str, Any]
Rows = list[dict[str, Any]]


def draw_groups(trainer: Any, inputs: Rows, score: Callable[[Rows], Output]) -> Output:
    """Returns a batch for the loss in which as many groups as possible compare the modes.

    Args:
        trainer: trainer whose `_gathered` rewards and modes are those of the batch scored last.
        inputs: rows of this process, one per episode; the episodes of a group lie together.
        score: samples and scores rows. All processes call it equally often.
    """
    size, process = trainer.num_generations, trainer.accelerator.process_index
    wanted = len(inputs) // size
    kept: list[tuple[Output, slice]] = []
    others: list[tuple[Output, slice]] = []
    draws = 0
    while True:
        output = score(inputs)
        draws += 1
        rewards, consulted = trainer._gathered
        compares = compare_modes(rewards, consulted, size)[process * wanted :][:wanted]
        for number, does in enumerate(compares):
            (kept if does else others).append((output, slice(number * size, (number + 1) * size)))
        missing = torch.tensor([max(wanted - len(kept), 0)], device=trainer.accelerator.device)
        total = int(trainer.accelerator.reduce(missing).item())
        if not total or draws == trainer.args.max_draws:
            break
        inputs = other_prompts(trainer, wanted, draws)
    metrics = trainer._metrics["train"]
    metrics["ifpo/draws"].append(float(draws))
    metrics["ifpo/comparing_groups"].append(1 - total / (wanted * trainer.accelerator.num_processes))
    if draws == 1:
        return output
    merged = merge([*kept, *others][:wanted], trainer._tokenizer.pad_token_id)
    mask = merged["completion_mask"] * merged.get("tool_mask", 1)
    merged["num_items_in_batch"] = trainer.accelerator.reduce(mask.sum())
    return merged


def compare_modes(rewards: torch.Tensor, consulted: torch.Tensor, size: int) -> list[bool]:
    """Returns whether each group compares the modes.

    Args:
        rewards: (N,) NaN where an episode has none.
        consulted: (N,) modes.
        size: episodes of a group; they lie together.
    """
    found = []
    for start in range(0, len(rewards), size):
        reward, mode = rewards[start : start + size], consulted[start : start + size]
        rated = ~reward.isnan()
        found.append(len(set(mode[rated].tolist())) == 2 and len(set(reward[rated].tolist())) > 1)
    return found


def other_prompts(trainer: Any, count: int, draw: int) -> Rows:
    """Returns the rows of `count` random prompts for this process, each repeated for the episodes of a group.

    No process of the same draw gets the same prompts, unless the data set is too small.
    """
    data, accelerator = trainer.train_dataset, trainer.accelerator
    needed = count * accelerator.num_processes
    random = np.random.default_rng([trainer.args.seed, trainer.state.global_step, draw])
    places = random.choice(len(data), needed, replace=needed > len(data))
    first = accelerator.process_index * count
    return [
        dict(data[int(place)])
        for place in places[first : first + count]
        for _ in range(trainer.num_generations)
    ]


def merge(parts: Sequence[tuple[Output, slice]], padding: int) -> Output:
    """Merges batches into one, padded to equal widths: prompts on the left, all other fields on the right.

    Args:
        padding: id of the token that pads prompts and completions. Masks and numbers are padded with 0.
    """
    merged: Output = {}
    for key, example in parts[0][0].items():
        if not isinstance(example, torch.Tensor) or example.ndim == 0:
            continue
        columns = [output[key][rows] for output, rows in parts]
        if example.ndim > 1:
            width = max(column.shape[1] for column in columns)
            value = padding if key.endswith("_ids") else 0
            on_left = key.startswith("prompt_")
            columns = [
                torch.nn.functional.pad(
                    column,
                    (width - column.shape[1], 0) if on_left else (0, width - column.shape[1]),
                    value=value,
                )
                for column in columns
            ]
        merged[key] = torch.cat(columns)
    return merged
