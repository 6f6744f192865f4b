"""Embeds, indexes and scores rules, and stores the index artefact on disk."""

from rule_server.retrieval.encoders.chunking import split_into_windows
from rule_server.retrieval.encoders.onnx import BATCH_SIZE, MODEL_FILE, TOKENIZER_FILE, OnnxEncoder
from rule_server.retrieval.encoders.onnx_export import resolve_model
from rule_server.retrieval.encoders.protocol import Encoder, StagedEncoder
from rule_server.retrieval.threshold import Calibration, Threshold, scoring_version

__all__ = [
    "BATCH_SIZE",
    "Calibration",
    "Encoder",
    "MODEL_FILE",
    "OnnxEncoder",
    "StagedEncoder",
    "TOKENIZER_FILE",
    "Threshold",
    "resolve_model",
    "scoring_version",
    "split_into_windows",
]
