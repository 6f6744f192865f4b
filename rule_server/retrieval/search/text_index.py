"""The FAISS index of a rulebook's texts for one encoder: exact, and memory-mapped when read from files.

There is one index per encoder, not one of both vectors side by side: a rule's score needs the similarity by
each encoder separately, and most questions are only searched by the multilingual one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rule_server.retrieval.encoders.protocol import Vectors

    Floats = NDArray[np.float64]
    Rows = NDArray[np.int64]

EXHAUSTIVE_TEXTS = 8192
"""Texts of rules up to which all are compared with a question. Ordering them would take longer."""
NEAREST_TEXTS = 1024
"""Nearest texts to find in a larger rulebook."""
CODED_DIMENSIONS = 4
"""Dimensions of a vector that share a code of 4 bits, if its length is a multiple. With eight, half the time
of the codes would be saved, but one in seven of the nearest 256 texts would not be among the first 1024."""
LIST_TEXTS, MAX_LISTS = 800, 256
"""Average number of texts in a list of codes, and the most lists: finding them takes time in a build."""
SEARCHED_TEXTS, SEARCHED_SHARE = 65_536, 0.25
"""Average number of texts in the lists that are searched, which are at least this share of the lists."""
SUFFIX = ".faiss"


@dataclass(frozen=True)
class Shortlist:
    """Finds the nearest of many texts without reading the vectors of all."""

    codes: Any
    """IndexIVFPQFastScan of the texts of rules, 30 times smaller than their vectors: lists of similar texts,
    of which the nearest are searched. Earlier versions wrote an IndexPQFastScan, which is one list."""
    means: Any
    """IndexFlatIP with the mean vector of each rule's texts, from which those of sections are computed."""

    def search(self, question: Vectors) -> tuple[Rows, float]:
        """Returns the rows of the nearest texts, and the lowest of their similarities by the codes.

        Takes one question, (1, dimension).
        """
        if not question.any():  # nothing is similar to a language that the encoder does not know
            return np.arange(NEAREST_TEXTS)[None], 0.0
        similarities, rows = self.codes.search(question, NEAREST_TEXTS)
        if rows[0, -1] < 0:  # the lists that are searched have fewer texts
            every = faiss.SearchParametersIVF()
            every.nprobe = self.codes.nlist
            similarities, rows = self.codes.search(question, NEAREST_TEXTS, params=every)
        return rows, float(similarities[0, -1])


class TextIndex:
    """Vectors of texts: those of one rule after another, and everyday requests after them. Immutable.

    `flat` is an exact index by inner product (IndexFlatIP) of all texts. A large rulebook also has a
    `shortlist`.
    """

    def __init__(self, flat: Any, shortlist: Shortlist | None) -> None:
        self.flat = flat
        self.shortlist = shortlist

    @classmethod
    def build(cls, vectors: Vectors, sizes: Sequence[int]) -> TextIndex:
        """Indexes vectors (texts, dimension). `sizes` are the numbers of texts of the rules, in order."""
        flat = _flat(vectors)
        rows = sum(sizes)
        if rows <= EXHAUSTIVE_TEXTS:
            return cls(flat, None)
        starts = np.cumsum([0, *sizes])[:-1]
        means = np.add.reduceat(vectors[:rows], starts, axis=0) / np.array(sizes, np.float32)[:, None]
        dimension = vectors.shape[1]
        parts = dimension // math.gcd(dimension, CODED_DIMENSIONS)
        lists = min(MAX_LISTS, max(1, rows // LIST_TEXTS))
        codes = faiss.IndexIVFPQFastScan(
            faiss.IndexFlatIP(dimension), dimension, lists, parts, 4, faiss.METRIC_INNER_PRODUCT
        )
        codes.by_residual = False
        codes.nprobe = math.ceil(lists * min(1, max(SEARCHED_SHARE, SEARCHED_TEXTS / rows)))
        codes.cp.spherical = True
        codes.cp.max_points_per_centroid = 64  # four times as many take four times as long
        codes.train(np.ascontiguousarray(vectors[:rows]))
        codes.add(np.ascontiguousarray(vectors[:rows]))
        return cls(flat, Shortlist(codes, _flat(means.astype(np.float32))))

    @classmethod
    def read(cls, folder: Path, name: str) -> TextIndex:
        """Maps the files that `serialized` described. Processes that map the same files share their memory.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: a file is damaged, or is not such an index.
        """
        flat = _read(folder / f"{name}{SUFFIX}", faiss.IndexFlatIP)
        if not (folder / f"{name}.codes{SUFFIX}").exists():
            return cls(flat, None)
        codes = _read(folder / f"{name}.codes{SUFFIX}", faiss.IndexIVFPQFastScan, faiss.IndexPQFastScan)
        return cls(flat, Shortlist(codes, _read(folder / f"{name}.means{SUFFIX}", faiss.IndexFlatIP)))

    def serialized(self, name: str) -> dict[str, NDArray[np.uint8]]:
        """Returns the content of each file by name. `faiss.read_index` reads them."""
        files = {f"{name}{SUFFIX}": faiss.serialize_index(self.flat)}
        if self.shortlist is not None:
            files[f"{name}.codes{SUFFIX}"] = faiss.serialize_index(self.shortlist.codes)
            files[f"{name}.means{SUFFIX}"] = faiss.serialize_index(self.shortlist.means)
        return files

    def __len__(self) -> int:
        return int(self.flat.ntotal)

    @property
    def dimension(self) -> int:
        """Of each vector."""
        return int(self.flat.d)

    def vectors(self, start: int = 0, count: int | None = None) -> Vectors:
        """Returns a copy of the vectors of consecutive texts."""
        count = len(self) - start if count is None else count
        return np.asarray(self.flat.reconstruct_n(start, count), np.float32)

    def cosines(self, questions: Vectors) -> Floats:
        """Returns the similarities of questions to all texts: (questions, texts)."""
        return _all_products(self.flat, questions)

    def nearest(self, questions: Vectors) -> tuple[Rows, Floats, Floats]:
        """Returns the rows and similarities of the nearest rule texts, in row order: (questions, texts) each.
        And the similarities to codes from which texts were returned: (questions, 1).

        The similarities of texts are exact, but the codes choose them: see benchmarks/retrieval/RESULTS.md.
        """
        assert self.shortlist is not None
        questions = np.ascontiguousarray(questions, np.float32)
        # With several questions, FAISS would choose the lists by products that depend on their number.
        found = [self.shortlist.search(question[None]) for question in questions]
        rows = np.sort(np.concatenate([rows for rows, _ in found]), axis=1)  # the order of the file
        limits = np.array([[limit] for _, limit in found], np.float64)
        return rows, self.cosines_to(questions, rows), limits

    def cosines_to(self, questions: Vectors, rows: Rows) -> Floats:
        """Returns the similarities of each question to its own rows of texts: (questions, texts)."""
        return _products(self.flat, questions, rows)


class MeanVectors:
    """Mean vectors of groups of texts."""

    def __init__(self, means: Vectors) -> None:
        """Takes the means (groups, dimension)."""
        self._flat = _flat(means)

    def cosines(self, questions: Vectors) -> Floats:
        """Returns the mean similarity of questions to the texts of each group: (questions, groups)."""
        return _all_products(self._flat, questions)


def _flat(vectors: Vectors) -> Any:
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(np.ascontiguousarray(vectors, np.float32))
    return index


def _read(path: Path, *kinds: type) -> Any:
    if not path.exists():
        raise FileNotFoundError(path)
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError:
        raise ValueError(f"{path.name} is not a complete FAISS index") from None
    if not isinstance(index, kinds) or index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise ValueError(f"{path.name} is not an {kinds[0].__name__} by inner product")
    return index


def _all_products(index: Any, questions: Vectors) -> Floats:
    """Returns the inner products of questions with every vector of an index.

    NumPy would copy the vectors of a mapped file first, and its products depend on the number of questions.
    """
    rows = np.broadcast_to(np.arange(index.ntotal), (len(questions), index.ntotal))
    return _products(index, questions, rows)


def _products(index: Any, questions: Vectors, rows: Rows) -> Floats:
    """Returns the inner products of each question with its own rows of vectors."""
    questions = np.ascontiguousarray(questions, np.float32)
    rows = np.ascontiguousarray(rows, np.int64)
    products = np.empty(rows.shape, np.float32)
    pointers = [faiss.swig_ptr(array) for array in (questions, products, rows)]
    index.compute_distance_subset(len(rows), pointers[0], rows.shape[1], *pointers[1:])
    return products.astype(np.float64)
