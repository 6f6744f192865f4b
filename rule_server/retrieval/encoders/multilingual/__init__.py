"""The multilingual encoder: Universal Sentence Encoder, multilingual, version 3."""

from rule_server.retrieval.encoders.multilingual.encoder import (
    DIMENSION,
    MultilingualEncoder,
    multilingual_fingerprint,
)

__all__ = ["DIMENSION", "MultilingualEncoder", "multilingual_fingerprint"]
