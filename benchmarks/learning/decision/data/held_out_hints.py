"""Makes hints with learned parts of the rule search that were not trained on the prompt's source.

For a prompt of a public source, the relevance decision and the order of the rules are trained without its
source, as `benchmarks.retrieval.training.relevance` leaves whole sources out, and without texts of that
source in others. The packaged parts give the hints for our own prompts, which they were not trained on. The
texts come from the rule service itself. All runs share the packaged offset and gate: two numbers that were
chosen on prompts of all sources, each by the run that had left it out.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.learning.decision.data.hints import Hint, key_of
from benchmarks.retrieval.cached_encoder import CachedEncoder
from benchmarks.retrieval.quality import read_rows
from benchmarks.retrieval.training import ranking, ranking_texts, relevance
from benchmarks.retrieval.training.examples import NEVER, WHOLE, read_examples
from benchmarks.retrieval.training.perceptron import TrainingSettings
from evaluation.prompts import Prompt
from rule_server.retrieval.build import LoadedIndex, load_or_build
from rule_server.retrieval.index import RuleIndex
from rule_server.retrieval.relevance.model import Part, RelevanceModel, relevance_model
from rule_server.retrieval.relevance.ranking import RankingModel, ranking_model
from rule_server.schemas import MAX_SITUATION_CHARS, ConsultRequest
from rule_server.service.guidance import hint_line
from rule_server.service.rule_service import RuleService
from rule_server.settings import load_settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Flags = NDArray[np.bool_]

TOP_K = 1
"""Number of rules in a hint; `make demo` uses the same number for this model."""
TRAINED: tuple[Part, ...] = ("multilingual", "both")
"""Parts that are trained again. All prompts are English."""


def make_hints(data: Path, artefact: Path, prompts: dict[str, list[Prompt]]) -> list[Hint]:
    """Returns a hint for every prompt.

    Args:
        data: folder of the labelled sources, with `label_map.json`.
        artefact: folder of the index; the vectors of texts are cached beside it.
        prompts: prompts by `source/kind`; a source that `training.relevance` does not name is our own.

    Raises:
        RuleServiceError: the index cannot be loaded.
        ValueError: the data cannot be read.
    """
    loaded = load_or_build(load_settings(artefact=artefact, watch=False), _notify)
    encoder = CachedEncoder(loaded.encoder, artefact.parent)
    by_run: dict[int, list[Prompt]] = {}
    for name, own in prompts.items():
        by_run.setdefault(run_of(name.partition("/")[0]), []).extend(own)
    parts = LearnedParts(data, loaded.index, encoder) if set(by_run) != {PACKAGED} else None
    encoder.save()
    hints: list[Hint] = []
    for run, chosen in sorted(by_run.items()):
        index = loaded.index if run == PACKAGED or parts is None else parts.without(run)
        hints += asyncio.run(_ask(LoadedIndex(encoder, index, ()), chosen, run))
        _notify(f"hints for {len(chosen)} prompts: {_name(run)}")
    encoder.save()
    return hints


PACKAGED = -1
"""Stands for the packaged parts in place of a run."""


def run_of(source: str) -> int:
    """Returns the run that leaves a source out; `PACKAGED` for our own prompts."""
    return next((at for at, sources in enumerate(WHOLE) if source in sources), PACKAGED)


def _name(run: int) -> str:
    return "packaged" if run == PACKAGED else f"run {run}"


class LearnedParts:
    """The texts of all sources as vectors, to train the learned parts without some of them."""

    def __init__(self, data: Path, index: RuleIndex, encoder: CachedEncoder) -> None:
        self._rows = [row for row in read_rows(data) if row["kind"] is not None]
        self._index = index
        self._examples = read_examples(self._rows, index, encoder)
        labels = json.loads((data / "label_map.json").read_text(encoding="utf-8"))["map"]
        self._labelled = ranking_texts.read_prompts(data, labels, encoder)
        self._texts = ranking_texts.training_texts(self._labelled, index, encoder)

    def without(self, run: int) -> RuleIndex:
        """Returns the index with parts that were trained without the sources that a run leaves out."""
        return self._index.ranked_by(self._ranking(run), self._relevance(run))

    def _relevance(self, run: int) -> RelevanceModel:
        examples, used = self._examples, self._examples.whole != NEVER
        used &= examples.whole != run
        left_out = {_normal(row["prompt"]) for row in self._rows if run_of(row["source"]) == run}
        repeated = np.array([_normal(row["prompt"]) in left_out for row in self._rows])
        used[: len(self._rows)] &= ~repeated
        parts = {part: relevance.fit(examples, part, used, TrainingSettings()) for part in TRAINED}
        return replace(relevance_model(), multilingual=parts["multilingual"], both=parts["both"])

    def _ranking(self, run: int) -> RankingModel:
        used: Flags = ~np.isin(self._texts.groups, WHOLE[run])
        settings = ranking.RankingSettings()
        multilingual, both = (ranking.fit(self._texts, used, part, settings) for part in ranking.ENGLISH)
        return replace(ranking_model(), multilingual=multilingual, both=both)


def _normal(text: str) -> str:
    return " ".join(text.lower().split())


async def _ask(loaded: LoadedIndex, prompts: Sequence[Prompt], run: int) -> list[Hint]:
    """Asks the rule service for the hint of each prompt."""
    service = RuleService(loaded, load_settings(watch=False, default_top_k=TOP_K))
    hints = []
    async with service.running():
        await service.warm()
        for prompt in prompts:
            request = ConsultRequest(situation=prompt.prompt[:MAX_SITUATION_CHARS])
            response, near = await service.hint(request), await service.nearest(request)
            score = near.rules[0].score if near.rules else 0.0
            hints.append(Hint(key_of(prompt), hint_line(response), bool(response.rules), score, _name(run)))
    return hints


def _notify(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
