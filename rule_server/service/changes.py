"""What happened since the start: what the last reload changed, and which rules were used."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from rule_server.observability import now
from rule_server.rulebook import Rulebook

UNSPOKEN = {"owner", "review_by", "priority", "tags", "references"}
"""Keys of a rule that no model reads and no search goes by."""


class _View(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, use_attribute_docstrings=True)


class Rejected(_View):
    """An edit that cannot be served."""

    at: str
    problem: str
    """What is wrong, and where."""


class Changes(_View):
    """What the last reload changed; before any, `previous` and `at` are null and the lists empty."""

    digest: str
    """Of the rulebook that is served."""
    previous: str | None
    """Of the one that was served before it."""
    at: str | None
    """When it was taken up, in UTC."""
    added: list[str]
    """Ids of rules that were not served before."""
    removed: list[str]
    """Ids of rules that are not served any more."""
    reworded: list[str]
    """Ids of rules that are served in other words or languages, or are found by others."""
    rejected: Rejected | None
    """Set while the newest edit is not served."""

    @classmethod
    def none(cls, rulebook: Rulebook) -> Changes:
        return cls(
            digest=rulebook.digest, previous=None, at=None, added=[], removed=[], reworded=[], rejected=None
        )

    @classmethod
    def between(cls, before: Rulebook, after: Rulebook) -> Changes:
        both = [id for id in after.served if id in before.served]
        old, new = _words(before), _words(after)
        differing = {key[0] for key in old.keys() | new.keys() if old.get(key) != new.get(key)}
        return cls(
            digest=after.digest,
            previous=before.digest,
            at=now(),
            added=[id for id in after.served if id not in before.served],
            removed=[id for id in before.served if id not in after.served],
            reworded=[id for id in both if id in differing],
            rejected=None,
        )


def _words(book: Rulebook) -> dict[tuple[str, str], dict[str, object]]:
    """What is served or searched of each rule, by id and language."""
    spoken = {(id, ""): rule for id, rule in book.served.items()} | book.translations
    return {key: rule.model_dump(exclude=UNSPOKEN) for key, rule in spoken.items()}
