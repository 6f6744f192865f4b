"""Which prompts are learnt from, which are watched, and which unseen ones the figures are measured on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from evaluation.prompts import Prompt, load_prompts
from trainer.stages.sft.demonstrations import read_written_demonstrations

OWN_PROMPTS = Path(__file__).with_name("decision_prompts.jsonl")
NOT_PROMPTS = ("xstest_responses",)  # answers to prompts of another source
PROBES = ("ailuminate_demo",)  # some of its prompts are answerable questions, so it labels no decision
NO_LABELS = ("advbench",)  # repetitive
HELD_OUT = 6


def training_prompts() -> list[Prompt]:
    """Prompts of our own words: the built-in set for learning, those of the demonstrations, and five in six
    of the benchmarks' own."""
    return [
        *load_prompts("builtin:train"),
        *_demonstrated(),
        *(
            prompt
            for place, prompt in enumerate(load_prompts(OWN_PROMPTS))
            if place % HELD_OUT != HELD_OUT - 1
        ),
    ]


def _demonstrated() -> list[Prompt]:
    return [
        Prompt.model_validate(
            {"id": f"demonstration-{place:03d}"} | written.model_dump(include={"prompt", "kind"})
        )
        for place, written in enumerate(read_written_demonstrations())
    ]


def held_out_prompts() -> dict[str, list[Prompt]]:
    """The sixth part of our own prompts that is measured on instead, by `own/kind`."""
    held: dict[str, list[Prompt]] = {}
    for prompt in load_prompts(OWN_PROMPTS)[HELD_OUT - 1 :: HELD_OUT]:
        held.setdefault(f"own/{prompt.kind}", []).append(prompt)
    return held


def validation_prompts() -> list[Prompt]:
    """The built-in set that no training sees."""
    return load_prompts("builtin:held_out")


def source_prompts(
    folder: Path, per_source: int, *, only: Sequence[str] = (), without: Sequence[str] = ()
) -> dict[str, list[Prompt]]:
    """Up to `per_source` prompts of every source and kind in a folder, chosen by the digest of their ids.

    Args:
        folder: JSON Lines files, one a source.
        per_source: of each kind.
        only: names of the sources to take; none means all.
        without: names of sources to leave out.

    Returns:
        Prompts by `source/kind`.

    Raises:
        PromptError, ValueError: a file cannot be read, or there is none.
    """
    left_out = {*NOT_PROMPTS, *PROBES, *NO_LABELS, *without}
    files = [
        file
        for file in sorted(folder.glob("*.jsonl"))
        if file.stem not in left_out and (not only or file.stem in only)
    ]
    if not files:
        raise ValueError(f"there are no JSON Lines files in '{folder}': pass a folder of labelled prompts")
    if missing := sorted(set(only) - {file.stem for file in files}):
        raise ValueError(f"'{folder}' has no source '{missing[0]}' to learn from")
    chosen: dict[str, list[Prompt]] = {}
    for file in files:
        for prompt in load_prompts(file):
            chosen.setdefault(f"{file.stem}/{prompt.kind}", []).append(prompt)
    return {
        name: sorted(prompts, key=lambda prompt: hashlib.sha256(prompt.id.encode()).digest())[:per_source]
        for name, prompts in chosen.items()
    }
