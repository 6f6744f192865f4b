"""Cues of refusals in English, and the cheap tests that precede the search for them."""

from evaluation.scorers.refusal.patterns.english.cues import ENGLISH, spell_out

__all__ = ["ENGLISH", "spell_out"]
