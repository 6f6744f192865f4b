"""Encoders that turn texts into unit vectors."""

from rule_server.retrieval.encoders.onnx import BATCH_SIZE, MODEL_FILE, TOKENIZER_FILE, OnnxEncoder
from rule_server.retrieval.encoders.protocol import Encoder, StagedEncoder

__all__ = ["BATCH_SIZE", "Encoder", "MODEL_FILE", "OnnxEncoder", "StagedEncoder", "TOKENIZER_FILE"]
