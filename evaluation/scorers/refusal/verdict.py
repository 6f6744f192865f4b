"""The verdict of the refusal detector. Importing it does not load the detector's patterns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

REFUSAL_VERSION = "weighed-9"

RefusalLabel = Literal["refusal", "partial", "compliance"]
RefusalPart = Literal["phrase", "lecture", "style"]
NO_ANSWER = "no answer"
UNREADABLE = "answer in a language that the detector does not read"


@dataclass(frozen=True)
class RefusalVerdict:
    """The detector's verdict on one answer.

    `label` is None if `cause` gives the reason: `NO_ANSWER` or `UNREADABLE`. `cues` names the matching
    patterns, `parts` the kinds of evidence for a refusal. `score` is the probability of a refusal, 0
    to 1; None without a label. `language` is the code of the language of most of the answer, "" if none.
    """

    label: RefusalLabel | None
    cues: tuple[str, ...] = ()
    version: str = REFUSAL_VERSION
    parts: tuple[RefusalPart, ...] = ()
    score: float | None = None
    cause: str | None = None
    language: str = ""
