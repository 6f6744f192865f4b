"""Rulebooks that an artefact stores: listed, found by digest, loaded and rolled back to."""

from __future__ import annotations

import datetime
import json
from collections import ChainMap
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

from pydantic import ValidationError

from rule_server.errors import ArtefactError
from rule_server.retrieval.artefact import PUBLISHED, SERVED, Artefact, Current
from rule_server.retrieval.encoders.onnx import MANIFEST_FILE
from rule_server.rulebook import Rulebook

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping
    from pathlib import Path

    from rule_server.retrieval.encoders.protocol import Encoder, Vectors
    from rule_server.retrieval.index import RuleIndex

MIN_PREFIX_CHARS = 6
MAX_REUSED_INDEXES = 3
"""Stored indexes, newest first, whose vectors are reused for another rulebook. Reading one takes about 20
ms."""


@dataclass(frozen=True)
class StoredRulebook:
    """One rulebook of an artefact."""

    digest: str
    name: str
    version: str
    rules: int
    """Number of served rules."""
    encoder: str
    """Fingerprint of the encoder of its vectors."""
    built: str
    """Time in UTC, to the second."""
    published: bool
    """Built by `ascl-rules build`, and not by an edit while serving or by a check."""
    served: bool
    """Current now or earlier, so that callers may have received answers from it."""
    current: bool

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def list_versions(artefact: Artefact) -> list[StoredRulebook]:
    """Returns all stored rulebooks, newest first, without damaged ones.

    Raises:
        ArtefactError: artefact.json is damaged.
    """
    current = artefact.current()
    versions = (_read_version(folder, current) for folder in artefact.rulebook_folders())
    return [version for version in versions if version is not None]


def find_version(artefact: Artefact, prefix: str) -> StoredRulebook:
    """Returns the rulebook whose digest begins with a prefix.

    Raises:
        ArtefactError: no rulebook matches, or more than one.
    """
    versions = list_versions(artefact)
    matches = [version for version in versions if version.digest.startswith(prefix.lower())]
    if len(prefix) < MIN_PREFIX_CHARS or not matches:
        examples = ", ".join(version.digest[:12] for version in versions[:5]) or "none"
        raise ArtefactError(
            f"{artefact.folder} has no rulebook {prefix[:64]!r}: specify {MIN_PREFIX_CHARS} or more "
            f"characters of a stored digest ({examples}; `ascl-rules rollback` lists them)"
        )
    if len(matches) > 1:
        raise ArtefactError(
            f"{len(matches)} rulebooks begin with {prefix}: "
            f"write more of the digest, {matches[0].digest[:16]}"
        )
    return matches[0]


def load_version(artefact: Artefact, digest: str) -> Rulebook:
    """Loads a stored rulebook. Raises ArtefactError when its file differs from what was written."""
    path = artefact.folder / "rulebooks" / digest / "rulebook.json"
    try:
        rulebook = Rulebook.from_canonical(path.read_bytes())
    except (OSError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise ArtefactError(f"{path} cannot be read ({reason}): remove its folder and build again") from None
    if rulebook.digest != digest:
        raise ArtefactError(f"{path} is not what was written: remove its folder and build again")
    return rulebook


def roll_back(artefact: Artefact, prefix: str) -> StoredRulebook:
    """Makes an earlier rulebook current. The service serves it when no rules folder is named.

    Raises:
        ArtefactError: the rulebook is not stored, is damaged, or its encoder is missing.
    """
    version = find_version(artefact, prefix)
    if not artefact.has_encoder(version.encoder) or artefact.index(version.digest, version.encoder) is None:
        raise ArtefactError(
            f"{version.digest[:12]} was built with an encoder or a version that is gone: "
            "build those rules again"
        )
    artefact.set_current(Current(version.encoder, version.digest, own_rules=False))
    return version


def index_for(rulebook: Rulebook, artefact: Artefact, encoder: Encoder) -> RuleIndex:
    """Returns an index of any rulebook, reusing stored vectors, and stores it without making it current.

    Raises:
        ArtefactError: the artefact is damaged. If it cannot be written, the index is only returned.
    """
    from rule_server.retrieval.index import RuleIndex

    index = artefact.index(rulebook.digest, encoder.fingerprint)
    if index is None:
        current = artefact.current()
        present = artefact.index(current.rulebook, encoder.fingerprint) if current is not None else None
        # As after an edit while serving, the last measured threshold stays in use.
        calibration = present.calibration if present is not None else None
        vectors = stored_vectors(artefact, encoder.fingerprint)
        index = RuleIndex.build(rulebook, encoder, vectors, calibration)
        try:
            artefact.save(index, own_rules=False, make_current=False)
        except ArtefactError:
            return index
    return index


def stored_vectors(artefact: Artefact, fingerprint: str) -> Mapping[str, Vectors]:
    """Returns the vectors by text of the current and the newest rulebooks of an encoder."""
    usable = [version for version in list_versions(artefact) if version.encoder == fingerprint]
    usable.sort(key=lambda version: not version.current)
    known: list[Mapping[str, Vectors]] = []
    for version in usable[:MAX_REUSED_INDEXES]:
        index = artefact.index(version.digest, fingerprint)
        if index is not None:
            known.append(index.vectors_by_text())
    return ChainMap(*cast("list[MutableMapping[str, Vectors]]", known))  # of which nothing is written


def _read_version(folder: Path, current: Current | None) -> StoredRulebook | None:
    try:
        manifest = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
        built = datetime.datetime.fromtimestamp((folder / "rulebook.json").stat().st_mtime, datetime.UTC)
        return StoredRulebook(
            digest=folder.name,
            name=manifest["name"],
            version=manifest["version"],
            rules=manifest["rules"],
            encoder=manifest["encoder"],
            built=built.strftime("%Y-%m-%d %H:%M:%S"),
            published=(folder / PUBLISHED).exists(),
            served=(folder / SERVED).exists() or (folder / PUBLISHED).exists(),
            current=current is not None and current.rulebook == folder.name,
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
