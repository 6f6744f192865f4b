"""Result of the last reload: which rules were added, removed or reworded, or why the edit was rejected."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from rule_server.observability import now
from rule_server.rulebook import Rulebook

INTERNAL_FIELDS = {"owner", "review_by", "priority", "tags", "references"}
"""Fields of a rule that neither models read nor the search uses."""


class ViewModel(BaseModel):
    """Base of the responses about the service itself."""

    model_config = ConfigDict(strict=True, frozen=True, use_attribute_docstrings=True)


class Rejected(ViewModel):
    """An edit that cannot be served."""

    at: str
    problem: str
    """The fault and where it is."""


class Changes(ViewModel):
    """Result of the last reload. Before the first, `previous` and `at` are null and the lists are empty."""

    digest: str
    """Digest of the current rulebook."""
    previous: str | None
    """Digest of the previous rulebook."""
    at: str | None
    """Time of the reload in UTC."""
    added: list[str]
    """Ids of rules that were not served before."""
    removed: list[str]
    """Ids of rules that are no longer served."""
    reworded: list[str]
    """Ids of rules whose text, languages or queries changed."""
    rejected: Rejected | None
    """Set while the newest edit is not served."""

    @classmethod
    def initial(cls, rulebook: Rulebook) -> Changes:
        """Returns the state before the first reload."""
        return cls(
            digest=rulebook.digest, previous=None, at=None, added=[], removed=[], reworded=[], rejected=None
        )

    @classmethod
    def between(cls, before: Rulebook, after: Rulebook) -> Changes:
        """Compares two rulebooks."""
        common = [id for id in after.served if id in before.served]
        old, new = _visible_fields(before), _visible_fields(after)
        differing = {key[0] for key in old.keys() | new.keys() if old.get(key) != new.get(key)}
        return cls(
            digest=after.digest,
            previous=before.digest,
            at=now(),
            added=[id for id in after.served if id not in before.served],
            removed=[id for id in before.served if id not in after.served],
            reworded=[id for id in common if id in differing],
            rejected=None,
        )


def _visible_fields(book: Rulebook) -> dict[tuple[str, str], dict[str, object]]:
    """Returns the served or searched fields of each rule by id and language."""
    rules = {(id, ""): rule for id, rule in book.served.items()} | book.translations
    return {key: rule.model_dump(exclude=INTERNAL_FIELDS) for key, rule in rules.items()}
