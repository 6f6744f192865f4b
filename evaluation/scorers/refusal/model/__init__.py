"""The learned parts of the refusal detector: weights of cues, and of n-grams."""

from evaluation.scorers.refusal.model.cue_model import WEIGHTS, RefusalModel, refusal_model, style_features
from evaluation.scorers.refusal.model.ngram_model import (
    NGRAM_RECIPE,
    NGRAM_WEIGHTS,
    NgramModel,
    ngram_buckets,
    ngram_model,
    write_ngram_model,
)

__all__ = [
    "NGRAM_RECIPE",
    "NGRAM_WEIGHTS",
    "WEIGHTS",
    "NgramModel",
    "RefusalModel",
    "ngram_model",
    "ngram_buckets",
    "refusal_model",
    "style_features",
    "write_ngram_model",
]
