"""multilingual-e5-small (Wang et al., arXiv 2402.05672): reads questions in other languages than English."""

from rule_server.retrieval.encoders.e5.encoder import DIMENSION, E5Encoder

__all__ = ["DIMENSION", "E5Encoder"]
