"""Loads the encoder and index that the settings ask for, and builds what is missing or stale."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rule_server.errors import ArtefactError, EncoderError, RulebookError
from rule_server.retrieval.artefact import Artefact, Current
from rule_server.retrieval.versions import index_for, load_version
from rule_server.rulebook import load_rulebook, with_drafts_active
from rule_server.settings import Settings, packaged_rules

if TYPE_CHECKING:
    from rule_server.retrieval.encoders.protocol import Encoder
    from rule_server.retrieval.index import RuleIndex
    from rule_server.rulebook import Rulebook

Notify = Callable[[str], None]
"""Receives progress messages and warnings for the user."""


@dataclass(frozen=True)
class LoadedIndex:
    """An encoder and its index. `rules` are the folders that the index follows, empty if it follows none."""

    encoder: Encoder
    index: RuleIndex
    rules: tuple[Path, ...]


def rules_folders(settings: Settings, current: Current | None = None) -> tuple[Path, ...]:
    """Returns the configured rules folders, else the packaged one, else none.

    An artefact built from a named folder is served as it was built: the packaged rules never replace it
    silently.
    """
    if settings.dir:
        return settings.dir
    if current is not None and not current.own_rules:
        return ()
    packaged = packaged_rules()
    return (packaged,) if packaged.is_dir() else ()


def load_or_build(
    settings: Settings,
    notify: Notify,
    *,
    build: bool = False,
    make_current: bool = True,
    drafts: bool = False,
) -> LoadedIndex:
    """Loads the encoder and the index, or builds them.

    Args:
        notify: receives progress messages and warnings.
        build: require a rules folder and a writable artefact, and publish the rulebook.
        make_current: False for a check: the artefact keeps its current rulebook.
        drafts: accept a rulebook that has only drafts. They count as active, and the index is not stored.

    Raises:
        RuleServiceError: something is missing; the message says how to get it.
    """
    artefact = Artefact(settings.artefact)
    current = artefact.current()
    rules = rules_folders(settings, None if build else current)
    if not rules and current is None:
        raise RulebookError(
            "there are no rules: specify a rules folder with --rules, or a built artefact with --artefact"
        )
    rulebook = load_rulebook(rules, settings.variables, drafts=drafts) if rules else None
    encoder = open_encoder(settings, notify)
    if rulebook is None:
        assert current is not None
        return LoadedIndex(encoder, _current_index(artefact, current.rulebook, encoder, notify), ())
    only_drafts = not rulebook.served
    if only_drafts:
        rulebook = with_drafts_active(rulebook)
    own_rules = not settings.dir
    if current is None and not make_current:
        # artefact.json names the encoder, so it must exist. The packaged rules are still followed.
        make_current = own_rules = True
    index = artefact.index(rulebook.digest, encoder.fingerprint)
    if index is None:
        index = _embed(artefact, current, rulebook, encoder, notify)
        if not only_drafts:
            index = save_index(
                artefact, index, own_rules, None if build else notify, make_current=make_current
            )
    elif make_current and current != (new := Current(encoder.fingerprint, rulebook.digest, own_rules)):
        try:
            artefact.set_current(new)
        except ArtefactError:
            if build:
                raise
    if build:
        artefact.publish(rulebook.digest)
    if make_current:
        artefact.add_lineage(rulebook.digest, rules)
    return LoadedIndex(encoder, index, rules)


def rebuild(
    artefact: Artefact,
    rulebook: Rulebook,
    encoder: Encoder,
    before: RuleIndex,
    own_rules: bool,
    notify: Notify,
) -> RuleIndex:
    """Returns the index of edited rules and makes it current.

    Reuses a stored index of the same rules if there is one.
    """
    from rule_server.retrieval.index import RuleIndex

    stored_before = _load_index(artefact, before.rulebook.digest, before.fingerprint)
    # `calibrate` may have run since `before` was read.
    measured = stored_before.calibration if stored_before is not None else None
    measured = measured or before.calibration
    index = _load_index(artefact, rulebook.digest, encoder.fingerprint)
    if index is None:
        index = RuleIndex.build(rulebook, encoder, before.vectors_by_text(), measured)
        return save_index(artefact, index, own_rules, notify)
    own = index.calibration
    stale = measured is not None and (own is None or own.rulebook != rulebook.digest)
    if stale:
        index = index.with_calibration(measured)
    try:
        if stale and measured is not None:
            artefact.save_calibration(rulebook.digest, measured)
        artefact.set_current(Current(encoder.fingerprint, rulebook.digest, own_rules))
    except ArtefactError as error:
        notify(f"serving from memory: {error}")
    return index


def _load_index(artefact: Artefact, digest: str, fingerprint: str) -> RuleIndex | None:
    """Returns a stored index. A damaged one counts as missing, and is built again."""
    try:
        return artefact.index(digest, fingerprint)
    except ArtefactError:
        return None


def save_index(
    artefact: Artefact,
    index: RuleIndex,
    own_rules: bool,
    notify: Notify | None,
    *,
    make_current: bool = True,
) -> RuleIndex:
    """Saves an index, and returns it as it was stored: its files are then shared with other processes.

    If the folder is not writable, warns through `notify`, or raises ArtefactError without it.
    """
    try:
        artefact.save(index, own_rules=own_rules, make_current=make_current)
    except ArtefactError as error:
        if notify is None:
            raise
        notify(f"serving from memory: {error}")
        return index
    return _load_index(artefact, index.rulebook.digest, index.fingerprint) or index


def open_encoder(settings: Settings, notify: Notify) -> Encoder:
    """Opens the artefact's encoder, and builds it if it is missing.

    Raises:
        EncoderError: there is no encoder and none can be built.
    """
    artefact = Artefact(settings.artefact)
    current = artefact.current()
    if current is not None:
        encoder = artefact.encoder(current.encoder, settings.threads, settings.precision)
        if settings.model is None and settings.prefix not in ("", encoder.prefix):
            raise EncoderError(
                f"the encoder in {artefact.folder} was built with another prefix than {settings.prefix!r}: "
                "name its model by --model too, so that one is built with this prefix"
            )
        if settings.model is None or (settings.model, settings.prefix) == (encoder.model, encoder.prefix):
            return encoder
    from rule_server.retrieval.encoders.onnx_export import export_encoder

    notify(f"building the encoder in {artefact.folder} (once; a few seconds)")
    try:
        return export_encoder(artefact, settings.model, settings.threads, settings.prefix, settings.precision)
    except EncoderError as error:
        raise EncoderError(f"there is no usable encoder in {artefact.folder}: {error}") from None


def _current_index(artefact: Artefact, digest: str, encoder: Encoder, notify: Notify) -> RuleIndex:
    """Returns the index of a stored rulebook, which is embedded again if it has the format of an earlier
    version."""
    index = artefact.index(digest, encoder.fingerprint)
    if index is not None:
        return index
    stored = load_version(artefact, digest)
    notify(f"embedding {stored.name} {stored.version}, {len(stored.served)} rules")
    return index_for(stored, artefact, encoder)


def _embed(
    artefact: Artefact, current: Current | None, rulebook: Rulebook, encoder: Encoder, notify: Notify
) -> RuleIndex:
    from rule_server.retrieval.index import RuleIndex

    before = artefact.index(current.rulebook, encoder.fingerprint) if current is not None else None
    vectors = before.vectors_by_text() if before is not None else {}
    calibration = before.calibration if before is not None else None
    notify(f"embedding {rulebook.name} {rulebook.version}, {len(rulebook.served)} rules")
    return RuleIndex.build(rulebook, encoder, vectors, calibration)


def preview_drafts(loaded: LoadedIndex) -> LoadedIndex:
    """Returns an index in which every draft counts as active. It is not stored and follows no folder."""
    from rule_server.retrieval.index import RuleIndex

    index = loaded.index
    preview = with_drafts_active(index.rulebook)
    vectors = index.vectors_by_text()
    return replace(
        loaded, index=RuleIndex.build(preview, loaded.encoder, vectors, index.calibration), rules=()
    )
