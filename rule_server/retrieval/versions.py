"""Rulebooks that an artefact keeps beside the current one: found by digest, and gone back to."""

from __future__ import annotations

import datetime
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from rule_server.errors import ArtefactError
from rule_server.retrieval.artefact import PUBLISHED, SERVED, Artefact, Current
from rule_server.retrieval.encoder import MANIFEST_FILE
from rule_server.rulebook import Rulebook

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rule_server.retrieval.encoder import Encoder, Vectors
    from rule_server.retrieval.index import RuleIndex

SHORTEST_PREFIX = 6
LOOKED_AT = 3
"""Indexes whose vectors are reused for another rulebook, newest first: reading one costs some 20 ms."""


@dataclass(frozen=True)
class StoredRulebook:
    """One rulebook of an artefact."""

    digest: str
    name: str
    version: str
    rules: int
    """Rules served."""
    encoder: str
    """Fingerprint of the encoder that its vectors are of."""
    built: str
    """When, in UTC, to the second."""
    published: bool
    """Made by `ascl-rules build`; otherwise by an edit while serving, or by a check."""
    served: bool
    """Current now or once, so that somebody may have been answered from it."""
    current: bool

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def list_versions(artefact: Artefact) -> list[StoredRulebook]:
    """All of them, newest first; a damaged one is left out.

    Raises:
        ArtefactError: when artefact.json is damaged.
    """
    current = artefact.current()
    found = (_kept(folder, current) for folder in artefact.kept_folders())
    return [kept for kept in found if kept is not None]


def find_version(artefact: Artefact, prefix: str) -> StoredRulebook:
    """The rulebook whose digest begins so.

    Raises:
        ArtefactError: when there is none, or more than one.
    """
    every = list_versions(artefact)
    found = [kept for kept in every if kept.digest.startswith(prefix.lower())]
    if len(prefix) < SHORTEST_PREFIX or not found:
        shown = ", ".join(kept.digest[:12] for kept in every[:5]) or "none"
        raise ArtefactError(
            f"{artefact.folder} keeps no rulebook {prefix[:64]!r}: name one by {SHORTEST_PREFIX} or more "
            f"characters of its digest (kept: {shown}; `ascl-rules rollback` lists them)"
        )
    if len(found) > 1:
        raise ArtefactError(
            f"{len(found)} rulebooks begin with {prefix}: write more of the digest, {found[0].digest[:16]}"
        )
    return found[0]


def load_version(artefact: Artefact, digest: str) -> Rulebook:
    """The content of a kept rulebook. Raises ArtefactError when it is not what was written."""
    path = artefact.folder / "rulebooks" / digest / "rulebook.json"
    try:
        rulebook = Rulebook.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise ArtefactError(f"{path} cannot be read ({reason}): remove its folder and build again") from None
    if rulebook.digest != digest:
        raise ArtefactError(f"{path} is not what was written: remove its folder and build again")
    return rulebook


def roll_back(artefact: Artefact, prefix: str) -> StoredRulebook:
    """Make an earlier rulebook the one that is served where no rules folder is named.

    Raises:
        ArtefactError: when it is not kept, is damaged, or cannot be searched any more.
    """
    kept = find_version(artefact, prefix)
    if not artefact.has_encoder(kept.encoder) or artefact.index(kept.digest, kept.encoder) is None:
        raise ArtefactError(
            f"{kept.digest[:12]} was built with an encoder or a version that is gone: build those rules again"
        )
    artefact.point(Current(kept.encoder, kept.digest, own_rules=False))
    return kept


def index_for(rulebook: Rulebook, artefact: Artefact, encoder: Encoder) -> RuleIndex:
    """An index of any rulebook, reusing what the artefact holds, and kept there without becoming current.

    Raises:
        ArtefactError: when the artefact is damaged. One that cannot be written is no error.
    """
    from rule_server.retrieval.index import RuleIndex

    index = artefact.index(rulebook.digest, encoder.fingerprint)
    if index is None:
        current = artefact.current()
        present = artefact.index(current.rulebook, encoder.fingerprint) if current is not None else None
        # As after an edit while serving: the threshold that was measured last goes on being used.
        calibration = present.calibration if present is not None else None
        known = known_vectors(artefact, encoder.fingerprint)
        index = RuleIndex.build(rulebook, encoder, known, calibration)
        try:
            artefact.save(index, own_rules=False, make_current=False)
        except ArtefactError:
            return index
    return index


def known_vectors(artefact: Artefact, fingerprint: str) -> Mapping[str, Vectors]:
    """Vectors by text of the current and the newest rulebooks that were embedded with this encoder."""
    usable = [kept for kept in list_versions(artefact) if kept.encoder == fingerprint]
    usable.sort(key=lambda kept: not kept.current)
    known: dict[str, Vectors] = {}
    for kept in usable[:LOOKED_AT]:
        index = artefact.index(kept.digest, fingerprint)
        if index is not None:
            known |= index.vectors_by_text()
    return known


def _kept(folder: Path, current: Current | None) -> StoredRulebook | None:
    try:
        manifest = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
        made = datetime.datetime.fromtimestamp((folder / "vectors.npy").stat().st_mtime, datetime.UTC)
        return StoredRulebook(
            digest=folder.name,
            name=manifest["name"],
            version=manifest["version"],
            rules=manifest["rules"],
            encoder=manifest["encoder"],
            built=made.strftime("%Y-%m-%d %H:%M:%S"),
            published=(folder / PUBLISHED).exists(),
            served=(folder / SERVED).exists() or (folder / PUBLISHED).exists(),
            current=current is not None and current.rulebook == folder.name,
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
