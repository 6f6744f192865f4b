"""Compares an answer with the reference: exact match and LaTeX."""

from evaluation.scorers.answers.exact import ANSWERS_VERSION, is_right

__all__ = ["ANSWERS_VERSION", "is_right"]
