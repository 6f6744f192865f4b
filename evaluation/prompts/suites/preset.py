"""Models of a suite: the data sets that it consists of, their columns, and what was published about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from evaluation.prompts.schema import Kind

Purpose = Literal["safety", "over-refusal", "utility"]
ScoredBy = Literal["refusal detector", "judge of harm", "reference answer"]
Form = Literal["text", "choices", "gpqa", "languages", "turns"]
"""How a row becomes prompts: one text; a question with lettered options; GPQA's four answer columns; one text
for each language column; the user's turns of a conversation."""

GPQA_OPTIONS = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")


@dataclass(frozen=True)
class Source:
    """One split of a data set, and its columns that are read."""

    data: str
    """Id on the Hugging Face hub, or the URL of a CSV file."""
    split: str
    prompt: str
    """Column with the text, the question or the turns. For `languages`: the columns, separated by commas."""
    kind: Kind | Mapping[str, Kind]
    """Kind of all rows, or the kinds by value of `kind_column`; rows with another value are skipped."""
    rows: int
    """Rows as published, before any are skipped."""
    config: str | None = None
    kind_column: str = ""
    category: str = ""
    """Column with the source's own category; empty for none."""
    id: str = ""
    """Column with the row's id; empty to identify a row by its text."""
    answer: str = ""
    """Column with the reference answer; empty for none."""
    answer_after: str = ""
    """Mark that precedes the reference answer in its column."""
    choices: str = ""
    """Column with the options of a question: a list of texts, or lists of texts and labels."""
    form: Form = "text"
    options: Mapping[str, str] = field(default_factory=dict)
    """Options of the file's reader, such as a delimiter."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the rows must have."""
        named = (self.kind_column, self.category, self.id, self.answer, self.choices)
        options = GPQA_OPTIONS if self.form == "gpqa" else ()
        return (*self.prompt.split(","), *(name for name in named if name), *options)

    @property
    def label(self) -> str:
        """Name of the split for people: data set, configuration and split."""
        return " ".join(part for part in (self.data, self.config, self.split) if part)


@dataclass(frozen=True)
class PublishedFigure:
    """A figure of a publication, for comparison; it was not measured here."""

    figure: str
    source: str


@dataclass(frozen=True)
class Suite:
    """A named set of prompts that the field reports on."""

    name: str
    title: str
    purpose: Purpose
    scored_by: tuple[ScoredBy, ...]
    licence: str
    paper: str
    """Where the suite was published."""
    sources: tuple[Source, ...]
    gated: bool = False
    """Whether the hub gives the data only to people who accepted its terms."""
    published: tuple[PublishedFigure, ...] = ()
    note: str = ""

    @property
    def rows(self) -> int:
        """Prompts of the whole suite, as published."""
        return sum(
            source.rows * (len(source.prompt.split(",")) if source.form == "languages" else 1)
            for source in self.sources
        )
