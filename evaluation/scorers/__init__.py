"""Scores answers: refusal, correctness, judges and the composed reward."""
