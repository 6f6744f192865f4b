"""Cues of refusals, language by language."""

from evaluation.scorers.refusal.patterns.arabic import ARABIC
from evaluation.scorers.refusal.patterns.east_asian import CHINESE, JAPANESE, KOREAN, simplify
from evaluation.scorers.refusal.patterns.english import ENGLISH, spell_out
from evaluation.scorers.refusal.patterns.germanic import GERMAN
from evaluation.scorers.refusal.patterns.hindi import HINDI
from evaluation.scorers.refusal.patterns.language import GROUPS, Cue, Group, Language, normalise
from evaluation.scorers.refusal.patterns.romance import FRENCH, ITALIAN, PORTUGUESE, SPANISH
from evaluation.scorers.refusal.patterns.slavic import RUSSIAN

LANGUAGES = {
    language.code: language
    for language in (
        *(ENGLISH, GERMAN, RUSSIAN, ARABIC, HINDI),
        *(SPANISH, FRENCH, PORTUGUESE, ITALIAN),
        *(CHINESE, JAPANESE, KOREAN),
        Language("hi-Latn", ()),
    )
}
"""Languages by code."""

__all__ = ["GROUPS", "LANGUAGES", "Cue", "Group", "Language", "normalise", "simplify", "spell_out"]
