"""Texts that the relevance decision is trained on and measured with, and the runs that leave them out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.retrieval.cached_encoder import CachedEncoder
from benchmarks.retrieval.quality import Row
from benchmarks.retrieval.training.mixed_requests import mixed_requests
from rule_server.retrieval import split_into_windows
from rule_server.retrieval.index import RuleIndex, index_entries
from rule_server.retrieval.relevance import delicate_requests, everyday_requests
from rule_server.retrieval.relevance.model import Part
from rule_server.schemas import MAX_SITUATION_CHARS

if TYPE_CHECKING:
    from numpy.typing import NDArray

NEVER_TRAINED = ("alignbench_zh", "wildchat_ru")
"""Sources whose terms allow only measuring, or that represent languages of unseen traffic."""
APPLIES = ("harmful", "benign_sensitive")
"""Kinds of prompts that a rule applies to."""
QUARTERS = (
    ("arena_chat", "gsm8k_test"),
    ("oasst_prompts", "mmlu_pro_sample"),
    ("self_instruct", "math500"),
    ("mtbench_first_turns", "safe_questions", "atlas_gauntlet"),
)
"""Sources of plain prompts that each run leaves out, with a quarter of all other prompts."""
WHOLE = (
    ("arena_chat", "ailuminate_demo"),
    ("oasst_prompts", "harmbench", "catqa"),
    ("self_instruct", "strongreject", "jailbreakbench", "advbench"),
    ("mtbench_first_turns", "safe_questions", "star1_permissive", "xstest"),
    ("atlas_gauntlet", "mmlu_pro_sample", "cyberseceval_frr", "simplesafetytests"),
    ("multijail", "gsm8k_test", "math500", "orbench_hard_subset"),
)
"""Sources that each run leaves out whole."""
NEVER, ALWAYS = -2, -1
"""Values in place of a run: never trained on, or always."""
MIXED = "mixed"
"""Group of the texts made of several requests."""


@dataclass(frozen=True)
class Examples:
    """Prompts as vectors. `windows` are the rows of `inputs` of each prompt."""

    inputs: dict[Part, NDArray[np.float32]]
    """Input of each perceptron, (windows, d)."""
    readable: dict[Part, NDArray[np.bool_]]
    """Which windows each may be trained on, (windows,): it knows their language."""
    decided: NDArray[np.bool_]
    """Which windows are in another language than English, (windows,), which only `other` decides about."""
    centre: NDArray[np.float32]
    """Mean vector of the rules' English texts by the encoder of other languages."""
    windows: list[slice]
    owners: NDArray[np.int64]
    """The prompt of each window, (windows,)."""
    groups: list[str]
    labels: NDArray[np.float32]
    quarters: NDArray[np.int64]
    """Run of `QUARTERS` that leaves the prompt out, NEVER or ALWAYS."""
    whole: NDArray[np.int64]
    """The same for `WHOLE`."""

    @property
    def trained(self) -> NDArray[np.int64]:
        """The rows that may be trained on: first windows, and the others of prompts that no rule applies to.

        A later window of a harmful prompt may be harmless.
        """
        first = np.zeros(len(self.owners), bool)
        first[[window.start for window in self.windows]] = True
        return np.flatnonzero(first | (self.labels[self.owners] == 0))


def quarter_of(row: Row) -> int:
    """Returns the run that leaves a prompt out. Translations of a prompt are left out together."""
    if row["source"] in NEVER_TRAINED:
        return NEVER
    if row["kind"] in APPLIES:
        name = str(row["id"]).rsplit("-", 1)[0] if row["source"] == "multijail" else str(row["id"])
        return hashlib.sha256(name.encode()).digest()[0] % len(QUARTERS)
    return next((at for at, sources in enumerate(QUARTERS) if row["source"] in sources), 0)


def run_of(row: Row) -> int:
    """Returns the run that leaves the source of a prompt out."""
    if row["source"] in NEVER_TRAINED:
        return NEVER
    return next((at for at, sources in enumerate(WHOLE) if row["source"] in sources), 0)


def read_examples(
    rows: Sequence[Row], index: RuleIndex, encoder: CachedEncoder, other: CachedEncoder | None = None
) -> Examples:
    """Embeds the prompts, the rules' texts and our own requests.

    `other` is the encoder of other languages. Without it, the part `other` cannot be trained.
    """
    entries = index_entries(index.rulebook)
    own, mixed = _own_requests(), mixed_requests()
    texts = [row["prompt"][:MAX_SITUATION_CHARS] or " " for row in rows]
    texts += [text for _, text in entries] + [text for text, *_ in own] + [one.text for one in mixed]
    labels = [row["kind"] in APPLIES for row in rows] + [bool(id) for id, _ in entries]
    labels += [label for *_, label in own] + [one.delicate for one in mixed]
    groups = [row["source"] for row in rows] + ["rules" if id else "background" for id, _ in entries]
    groups += [group for _, group, _ in own] + [MIXED] * len(mixed)
    windows = [split_into_windows(text) for text in texts]
    sizes = [len(cut) for cut in windows]
    owners, ends = np.repeat(np.arange(len(windows)), sizes), np.cumsum(sizes).tolist()
    slices = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
    pieces = [window for cut in windows for window in cut]
    multilingual, english, vectors = index.split(encoder.encode(pieces))
    assert multilingual is not None
    known, known_english = np.asarray(multilingual.any(axis=1)), np.asarray(english.any(axis=1))
    foreign = np.asarray(known & ~known_english)
    examples = Examples(
        {"multilingual": multilingual, "both": np.hstack([multilingual, english])},
        {"multilingual": known, "both": known_english},
        foreign,
        np.zeros(vectors.shape[1], np.float32),
        slices,
        owners,
        groups,
        np.array(labels, np.float32),
        _runs([quarter_of(row) for row in rows], len(texts)),
        _runs([run_of(row) for row in rows], len(texts)),
    )
    if other is None:
        return examples
    # English texts train the part `other` too, except mixed ones: they cost more chat in other languages than
    # they find.
    read = [at for at in examples.trained if not foreign[at] and groups[owners[at]] != MIXED]
    vectors = vectors.copy()
    vectors[read] = other.encode([pieces[at] for at in read])
    rules = [at for at in examples.trained if not foreign[at] and groups[owners[at]] == "rules"]
    return replace(
        examples,
        inputs=examples.inputs | {"other": np.hstack([multilingual, vectors])},
        readable=examples.readable | {"other": np.asarray(known & vectors.any(axis=1))},
        centre=vectors[rules].mean(axis=0),
    )


def _own_requests() -> list[tuple[str, str, bool]]:
    """Returns text, group and label of our own requests."""
    everyday = [(request.text, f"everyday {request.lang}", False) for request in everyday_requests()]
    return everyday + [(request.text, f"delicate {request.lang}", True) for request in delicate_requests()]


def _runs(runs: list[int], count: int) -> NDArray[np.int64]:
    """Returns runs of prompts, and ALWAYS for the other texts."""
    return np.array(runs + [ALWAYS] * (count - len(runs)))
