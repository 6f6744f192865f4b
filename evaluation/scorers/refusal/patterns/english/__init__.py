"""Cues of refusals in English, and what precedes the search for them."""

from evaluation.scorers.refusal.patterns.english.cues import ENGLISH, spell_out

__all__ = ["ENGLISH", "spell_out"]
