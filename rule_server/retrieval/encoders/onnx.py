"""The ONNX Runtime encoder, exported from a sentence-transformers model (no torch)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rule_server.errors import EncoderError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rule_server.retrieval.encoders.protocol import Vectors

MODEL_FILE, TOKENIZER_FILE, MANIFEST_FILE = "model.onnx", "tokenizer.json", "manifest.json"
INT8_MODEL_FILE = "model.rounded.onnx"
"""The same model with int8 weights; absent if they change its vectors too much."""
BATCH_SIZE = 32
MAX_TOKENS = 512
"""Maximum tokens in one batch, unless one text is longer. A larger batch does not fit the CPU cache."""
WIDTH_STEP = 4
"""A text is padded to a multiple of this many tokens."""


def file_digest(path: Path) -> str:
    """Returns the SHA-256 of a file, 64 hex characters."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_session(model: str | bytes, threads: int, weights: Mapping[str, NDArray[Any]] | None = None) -> Any:
    """Opens a graph, from a file or its content, with the weights that it names without containing them."""
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # A spinning worker thread would take the core from the web server.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    if weights is not None:
        arrays = [np.ascontiguousarray(array) for array in weights.values()]
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in arrays]
        options.add_external_initializers(list(weights), values)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def weightless(name: str, value: NDArray[Any]) -> Any:
    """Returns an initializer of a graph (`onnx.TensorProto`) that names an array without containing it."""
    from onnx import TensorProto, helper

    tensor = TensorProto(name=name, data_type=helper.np_dtype_to_tensor_dtype(value.dtype), dims=value.shape)
    tensor.data_location = TensorProto.EXTERNAL
    for field, entry in {"location": "package", "offset": "0", "length": str(value.nbytes)}.items():
        tensor.external_data.add(key=field, value=entry)
    return tensor


class OnnxEncoder:
    """A sentence encoder exported by `rule_server.retrieval.encoders.onnx_export`.

    Pools tokens as the model was trained, by their mean or by the first token, and normalises to length 1.
    A text gets the same vector, bit for bit, alone and in any batch.
    """

    def __init__(self, folder: Path, threads: int = 2, *, int8: bool = False, verify: bool = True) -> None:
        """Opens the encoder in a folder of an artefact, perhaps with int8 weights.

        Raises:
            EncoderError: a file is missing, or differs from the one that was built.
        """
        from tokenizers import Tokenizer

        try:
            manifest = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
            model = INT8_MODEL_FILE if int8 else MODEL_FILE
            if verify:
                for name in (model, TOKENIZER_FILE):
                    if file_digest(folder / name) != manifest["files"][name]:
                        raise EncoderError(f"{folder / name} is not the file that was built: build it again")
            self.fingerprint: str = manifest["fingerprint"]
            self.dimension: int = manifest["dimension"]
            self.model: str | None = manifest["model"]
            self.prefix: str = manifest.get("prefix", "")
            self._first_token = manifest.get("pooling", "mean") == "cls"
            self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
            self._tokenizer.enable_truncation(manifest["max_tokens"])
            self._tokenizer.no_padding()
            self._session = open_session(str(folder / model), threads)
            self._inputs = {item.name for item in self._session.get_inputs()}
        except (OSError, ValueError, KeyError) as error:
            raise EncoderError(
                f"the encoder in {folder} cannot be used ({error}): remove it and run `ascl-rules build`"
            ) from None

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Returns vectors (len(texts), dimension), float32. A text longer than the model's window is cut."""
        import numpy as np

        vectors = np.empty((len(texts), self.dimension), np.float32)
        ids = [self._tokenizer.encode(self.prefix + text).ids for text in texts]
        # Only texts of the same padded width share a batch: the last bits of a vector depend on the width.
        by_width: dict[int, list[int]] = {}
        for at, own in enumerate(ids):
            by_width.setdefault(-(-len(own) // WIDTH_STEP) * WIDTH_STEP, []).append(at)
        for width, rows in by_width.items():
            step = max(MAX_TOKENS // width, 1) if width else len(rows)
            for start in range(0, len(rows), step):
                batch = rows[start : start + step]
                vectors[batch] = self._encode_batch([ids[at] for at in batch], width)
        return vectors

    def _encode_batch(self, batch: Sequence[Sequence[int]], width: int) -> Vectors:
        import numpy as np

        ids = np.zeros((len(batch), width), np.int64)
        mask = np.zeros((len(batch), width), np.int64)
        for row, own in enumerate(batch):
            ids[row, : len(own)] = own
            mask[row, : len(own)] = 1
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        (tokens,) = self._session.run(None, {name: feed[name] for name in self._inputs})
        if self._first_token:
            pooled = tokens[:, 0]
        else:
            weights = mask[:, :, None].astype(np.float32)
            pooled = (tokens * weights).sum(1) / weights.sum(1).clip(1)
        length = np.sqrt(np.einsum("ij,ij->i", pooled, pooled))[:, None]
        return np.asarray(pooled / length.clip(1e-12))
