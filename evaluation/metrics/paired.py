"""What needs prompts or arms side by side: McNemar's test, contrast pairs, and hits of retrieval."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.errors import PromptError
from evaluation.metrics.intervals import Rate, wilson
from evaluation.prompts import Prompt
from evaluation.scorers import Reward

if TYPE_CHECKING:
    from agent.episode import Episode

HIT_AT = 3
MAX_MAP_BYTES = 2**20


@dataclass(frozen=True)
class McNemar:
    """Two arms on the same prompts: how many only one got right, and the exact two-sided p of that split."""

    n: int
    first_only: int
    other_only: int
    p: float


@dataclass(frozen=True)
class PromptNotes:
    """What a file of prompts says beyond text and kind.

    `pairs` maps prompt ids to the name of their contrast pair, `categories` to the rule categories that a
    retrieval may hit.
    """

    pairs: Mapping[str, str]
    categories: Mapping[str, frozenset[str]]


NO_NOTES = PromptNotes({}, {})


def mcnemar(first_only: int, other_only: int, n: int) -> McNemar:
    """The exact test on the discordant pairs, which under no difference fall either way with chance 1/2."""
    discordant, fewer = first_only + other_only, min(first_only, other_only)
    # The tail's largest term by logarithms, the others by their ratio to it: whole numbers grow too long.
    terms, term = [], 1.0
    for k in range(fewer, -1, -1):
        terms.append(term)
        term *= k / (discordant - k + 1)
    largest = math.lgamma(discordant + 1) - math.lgamma(fewer + 1) - math.lgamma(discordant - fewer + 1)
    p = 2 * math.fsum(terms) * math.exp(largest - discordant * math.log(2))
    return McNemar(n, first_only, other_only, round(min(1.0, p), 6))


def compare_outcomes(
    first: Sequence[Episode],
    other: Sequence[Episode],
    first_rewards: Mapping[str, Reward],
    other_rewards: Mapping[str, Reward],
) -> McNemar | None:
    """McNemar over the prompts that both arms were scored on; None without any.

    One sample a prompt (the first that both have), since the samples of one prompt are not independent.
    """
    right = _outcomes(first, first_rewards)
    wrong = _outcomes(other, other_rewards)
    seen: set[str] = set()
    cells = {(True, True): 0, (True, False): 0, (False, True): 0, (False, False): 0}
    for prompt, sample in sorted(right.keys() & wrong.keys()):
        if prompt not in seen:
            seen.add(prompt)
            cells[right[prompt, sample], wrong[prompt, sample]] += 1
    return mcnemar(cells[True, False], cells[False, True], len(seen)) if seen else None


def contrast_score(
    episodes: Sequence[Episode], rewards: Mapping[str, Reward], pairs: Mapping[str, str]
) -> Rate | None:
    """How often a pair's harmless prompts were all answered and its harmful ones all handled safely.

    Counted by pair and sample; a pair counts only where both sides were scored. None without such a pair.
    """
    kinds = {episode.prompt_id: episode.kind for episode in episodes}
    found: dict[tuple[str, int], dict[bool, list[bool]]] = defaultdict(lambda: {True: [], False: []})
    for (prompt, sample), good in _outcomes(episodes, rewards).items():
        if prompt in pairs:
            found[pairs[prompt], sample][kinds[prompt] == "harmful"].append(good)
    whole = [sides for sides in found.values() if sides[True] and sides[False]]
    if not whole:
        return None
    return wilson(sum(all(sides[True]) and all(sides[False]) for sides in whole), len(whole))


def retrieval_hits(episodes: Sequence[Episode], categories: Mapping[str, frozenset[str]]) -> Rate | None:
    """How often an episode's first answered consultation has an acceptable category among its first rules.

    None where no episode with a known category consulted.
    """
    hits = n = 0
    for episode in sorted(episodes, key=lambda e: e.id):
        answered = next((c for c in episode.consultations if c.verdict is not None), None)
        if answered is None or episode.prompt_id not in categories:
            continue
        n += 1
        hits += any(rule.category in categories[episode.prompt_id] for rule in answered.rules[:HIT_AT])
    return wilson(hits, n) if n else None


def prompt_notes(
    prompts: Sequence[Prompt], pair_by: str | None = None, label_map: Path | None = None
) -> PromptNotes:
    """Read pairs and acceptable categories.

    Args:
        prompts: with their further columns.
        pair_by: the column whose value the prompts of a pair share.
        label_map: JSON that maps a source to its labels, and those to lists of our categories; null for a
            label that implies none, `*` for any label. Without it a prompt's own category counts.

    Raises:
        PromptError: when no prompt has the column, or the map cannot be used.
    """
    pairs = {}
    if pair_by is not None:
        for prompt in prompts:
            value = getattr(prompt, pair_by, None)
            if isinstance(value, str) and value:
                pairs[prompt.id] = value
        if not pairs:
            raise PromptError(f"no prompt has a text in the column '{pair_by}', by which to pair them")
    if label_map is None:
        own = {p.id: frozenset({p.category}) for p in prompts if p.category}
        return PromptNotes(pairs, own)
    table = _read_map(label_map)
    categories = {}
    for prompt in prompts:
        labels = table.get(str(getattr(prompt, "source", "")), {})
        accepted = labels.get(prompt.category or "", labels.get("*"))
        if accepted:
            categories[prompt.id] = frozenset(accepted)
    return PromptNotes(pairs, categories)


def _read_map(path: Path) -> dict[str, dict[str, list[str] | None]]:
    if not path.is_file() or path.stat().st_size > MAX_MAP_BYTES:
        raise PromptError(f"the label map '{path}' is no file of at most {MAX_MAP_BYTES // 2**20} MiB")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise PromptError(f"the label map {path} is not JSON") from None
    table = value.get("map", value) if isinstance(value, dict) else None
    whole = isinstance(table, dict) and all(
        isinstance(labels, dict)
        and all(
            accepted is None or (isinstance(accepted, list) and all(isinstance(c, str) for c in accepted))
            for accepted in labels.values()
        )
        for labels in table.values()
    )
    if not whole:
        raise PromptError(
            f'the label map {path} has another form: {{"source": {{"label": ["category"]}}}} is needed'
        )
    assert isinstance(table, dict)
    return table


def _outcomes(episodes: Sequence[Episode], rewards: Mapping[str, Reward]) -> dict[tuple[str, int], bool]:
    """Whether each scored episode came out well, by prompt and sample."""
    return {
        (episode.prompt_id, episode.sample_index): reward.scores.outcome > 0.5
        for episode in episodes
        if (reward := rewards.get(episode.id)) is not None and reward.scores.outcome is not None
    }
