"""Models of the rulebook: categories, rules, and the digest of their content."""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

INVISIBLE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\U000e0000-\U000e0fff]"
)
"""Control and format characters. Models read them, but a reviewer does not see them."""

Stance = Literal["decline", "limit", "answer"]


def _one_line(text: str) -> str:
    """Normalises to NFC and single spaces, so that YAML folding and editors do not change the digest."""
    plain = text.isascii() and text.isprintable()  # most texts: nothing to normalise or to look for
    text = " ".join((text if plain else unicodedata.normalize("NFC", text)).split())
    if not text:
        raise ValueError("it is empty")
    if not plain and INVISIBLE.search(text):
        raise ValueError("it contains an invisible control character")
    return text


def _date(value: object) -> object:
    return datetime.date.fromisoformat(value) if isinstance(value, str) else value


Line = Annotated[str, Field(max_length=600), AfterValidator(_one_line)]
Prose = Annotated[str, Field(min_length=1)]
Date = Annotated[datetime.date, BeforeValidator(_date)]
Clause = Annotated[str, Field(max_length=440), AfterValidator(_one_line)]
"""Bounded, because with a longer clause the list of tools takes more than 600 tokens."""
Threshold = Annotated[float, Field(ge=0, le=1)]
Slug = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=64)]
RuleId = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*\.[a-z0-9]+(-[a-z0-9]+)*$", max_length=129)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Examples(Strict):
    """Example prompts without answers, for people, tests and the index. They are never returned."""

    benign: list[Line] = Field(default=[], max_length=20)
    harmful: list[Line] = Field(default=[], max_length=20)


class FrontMatter(Strict):
    """All keys of a rule file."""

    id: RuleId
    title: Line
    stance: Stance
    applies_when: Line
    not_when: Line | None = None
    owner: Line
    review_by: Date
    queries: list[Line] = Field(min_length=5, max_length=10)
    examples: Examples
    priority: int = Field(50, ge=0, le=100)
    status: Literal["active", "draft", "retired"]
    tags: list[Line] = Field(default=[], max_length=20)
    references: list[Line] = Field(default=[], max_length=20)


class Rule(FrontMatter):
    """One piece of guidance: its front matter and the three sections that a model reads."""

    lang: str = ""
    """Language of a translation (`de`), from the file name; empty for the original."""
    fine: Prose
    not_fine: Prose
    how_to_answer: Prose

    @property
    def category(self) -> str:
        return self.id.partition(".")[0]

    @property
    def text(self) -> str:
        """The text that a model reads."""
        return f"Fine: {self.fine}\nNot fine: {self.not_fine}\nHow to answer: {self.how_to_answer}"


class Category(Strict):
    """A hazard area, or the category of harmless look-alikes."""

    id: Slug
    title: Line
    summary: Line
    mlcommons: list[Line] = Field(max_length=20)
    severity: Literal["absolute", "high", "medium"]
    reviewed: Date
    body: str = ""


class Manifest(Strict):
    """Name and version of a rulebook."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    version: Annotated[str, Field(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+[0-9A-Za-z.+-]{0,32}$")]


class FolderManifest(Manifest):
    """rulebook.yaml: name and version of the rulebook, and its effect on the layers beneath it."""

    consult_when: Clause | None = None
    """When a model should consult this rulebook, as a clause: "a request is about fees or transfers". None:
    when a request concerns one of its categories."""
    threshold: Threshold | None = None
    """Score below which no rule applies. None: the calibrated one, or the default."""

    extends: Literal["ascl-core"] | None = None
    """Layer over the packaged rules. None: over the folders named before it, if any."""
    retire: list[RuleId] = Field(default=[], max_length=5000)
    """Rules of the layers beneath to retire."""


class Rulebook(Manifest):
    """A validated set of categories and rules, sorted by id (and language)."""

    consult_when: str | None = None
    """When a model should consult the rules, as a clause. None: `describe_scope` derives it."""
    threshold: Threshold | None = None
    """Score below which no rule applies, if the rulebook sets one."""
    categories: list[Category]
    rules: list[Rule]

    def canonical(self) -> str:
        """Returns JSON that depends only on the content, not on files, line folding or key order."""
        value = self.model_dump(mode="json")
        for optional in ("consult_when", "threshold"):
            if value[optional] is None:  # so that a rulebook without them keeps its digest
                del value[optional]
        return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_canonical(cls, content: bytes) -> Rulebook:
        """Reads a stored canonical form. Its digest is that of the bytes, so it need not be written again.

        Raises:
            ValidationError: it is not a rulebook.
        """
        book = cls.model_validate_json(content)
        book.__dict__["digest"] = hashlib.sha256(content).hexdigest()
        return book

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical form, 64 hex characters."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()

    @cached_property
    def served(self) -> dict[str, Rule]:
        """Active rules in their original language, by id."""
        return {rule.id: rule for rule in self.rules if rule.status == "active" and not rule.lang}

    @cached_property
    def languages(self) -> tuple[str, ...]:
        """Languages of the translations."""
        return tuple(sorted({lang for _, lang in self.translations}))

    @cached_property
    def translations(self) -> dict[tuple[str, str], Rule]:
        """Active translations of served rules, by id and language."""
        return {
            (rule.id, rule.lang): rule
            for rule in self.rules
            if rule.lang and rule.status == "active" and rule.id in self.served
        }


def describe_scope(categories: Iterable[Category], *, summaries: bool = False) -> str:
    """Returns when to consult rules of these categories, as a clause made of their titles."""
    parts = [f"{one.title} ({one.summary.rstrip('.')})" if summaries else one.title for one in categories]
    return f"a request concerns {'; '.join(parts)}"


def join_scopes(layers: Sequence[tuple[str | None, Mapping[str, Category]]]) -> str | None:
    """Returns when to consult any of the layers, as a clause; None if no layer states it.

    A layer consists of its `consult_when` and its categories, whose titles describe it without the former.
    """
    if not any(scope for scope, _ in layers):
        return None
    clauses = [
        scope or describe_scope(categories[name] for name in sorted(categories))
        for scope, categories in layers
        if scope or categories
    ]
    return ", or when ".join(dict.fromkeys(clauses))


def with_drafts_active(book: Rulebook) -> Rulebook:
    """Returns the rulebook with every draft set to active."""
    rules = [
        rule.model_copy(update={"status": "active"}) if rule.status == "draft" else rule
        for rule in book.rules
    ]
    # model_copy would also copy the cached digest and served rules of the original.
    return Rulebook(
        name=book.name,
        version=book.version,
        consult_when=book.consult_when,
        threshold=book.threshold,
        categories=book.categories,
        rules=rules,
    )


def describe_contents(book: Rulebook, others: Collection[str] = ()) -> str:
    """Returns the numbers of rules and categories in words. Translations do not count as rules.

    `others` are the ids of rules and categories that cannot be read, but count.
    """
    status = {rule.id: rule.status for rule in book.rules if not rule.lang}
    rules = status.keys() | {id for id in others if "." in id}
    categories = {category.id for category in book.categories} | {id for id in others if "." not in id}
    counts: Counter[str] = Counter(status.values())
    words = {"active": "active", "draft": "drafts" if counts["draft"] > 1 else "draft", "retired": "retired"}
    details = []
    if counts["draft"] or counts["retired"]:
        details.append(", ".join(f"{counts[name]} {word}" for name, word in words.items() if counts[name]))
    translations = len(book.rules) - len(status)
    if translations:
        details.append(f"{translations} translation{'s' if translations > 1 else ''}")
    more = f" ({'; '.join(details)})" if details else ""
    return f"{len(rules)} rules{more} in {len(categories)} categories"
