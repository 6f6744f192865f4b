"""Prompts for training, for validation, and unseen prompts for evaluation."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from evaluation.prompts import Prompt, load_prompts
from trainer.stages.sft.demonstrations import read_written_demonstrations

OWN_PROMPTS = Path(__file__).with_name("decision_prompts.jsonl")
DISGUISED_PROMPTS = Path(__file__).with_name("disguised_prompts.jsonl")
NOT_PROMPTS = ("xstest_responses",)  # responses to prompts of another source
PROBES = ("ailuminate_demo",)  # some of its prompts are harmless, so its labels do not determine the decision
NO_LABELS = ("advbench",)  # repetitive
HELD_OUT_EVERY = 6


def training_prompts() -> list[Prompt]:
    """Returns the training prompts.

    They are the built-in training set, the prompts of the demonstrations, and five in six of the benchmark's
    own prompts.
    """
    return [
        *load_prompts("builtin:train"),
        *_demonstration_prompts(),
        *(
            prompt
            for index, prompt in enumerate(load_prompts(OWN_PROMPTS))
            if index % HELD_OUT_EVERY != HELD_OUT_EVERY - 1
        ),
    ]


def _demonstration_prompts() -> list[Prompt]:
    return [
        Prompt.model_validate(
            {"id": f"demonstration-{index:03d}"} | written.model_dump(include={"prompt", "kind"})
        )
        for index, written in enumerate(read_written_demonstrations())
    ]


def held_out_prompts() -> dict[str, list[Prompt]]:
    """Returns one in six of the benchmark's own prompts, for evaluation, by `own/kind`."""
    held_out: dict[str, list[Prompt]] = {}
    for prompt in load_prompts(OWN_PROMPTS)[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]:
        held_out.setdefault(f"own/{prompt.kind}", []).append(prompt)
    return held_out


def validation_prompts() -> list[Prompt]:
    """Returns the built-in held-out set."""
    return load_prompts("builtin:held_out")


def disguised_prompts() -> list[Prompt]:
    """Returns harmful prompts whose harm is hidden: by a role, a story, another language, parts or typos.

    None contains a method.
    """
    return load_prompts(DISGUISED_PROMPTS)


def source_prompts(
    folder: Path, per_source: int, *, only: Sequence[str] = (), without: Sequence[str] = ()
) -> dict[str, list[Prompt]]:
    """Returns up to `per_source` prompts of every source and kind in a folder, chosen by a digest of their
    ids.

    Args:
        folder: folder of JSON Lines files, one per source.
        per_source: maximum number of prompts of each kind.
        only: names of the sources to use; empty for all.
        without: names of sources to leave out.

    Returns:
        Prompts by `source/kind`.

    Raises:
        PromptError: a file cannot be read.
        ValueError: the folder has no files, or a source in `only` is missing.
    """
    left_out = {*NOT_PROMPTS, *PROBES, *NO_LABELS, *without}
    files = [
        file
        for file in sorted(folder.glob("*.jsonl"))
        if file.stem not in left_out and (not only or file.stem in only)
    ]
    if not files:
        raise ValueError(f"no JSON Lines files in '{folder}': pass a folder of labelled prompts")
    if missing := sorted(set(only) - {file.stem for file in files}):
        raise ValueError(f"'{folder}' has no source '{missing[0]}' to train on")
    chosen: dict[str, list[Prompt]] = {}
    for file in files:
        for prompt in load_prompts(file):
            chosen.setdefault(f"{file.stem}/{prompt.kind}", []).append(prompt)
    return {
        name: sorted(prompts, key=lambda prompt: hashlib.sha256(prompt.id.encode()).digest())[:per_source]
        for name, prompts in chosen.items()
    }
