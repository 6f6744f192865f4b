"""From settings to something that can be served: build what is missing, reuse the rest, say which."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rule_server.errors import ArtefactError, EncoderError, RulebookError
from rule_server.retrieval.artefact import Artefact, Current
from rule_server.rulebook import load_rulebook, with_drafts_active
from rule_server.settings import Settings, packaged_rules

if TYPE_CHECKING:
    from rule_server.retrieval.encoder import Encoder
    from rule_server.retrieval.index import RuleIndex
    from rule_server.rulebook import Rulebook

Notify = Callable[[str], None]


@dataclass(frozen=True)
class LoadedIndex:
    """An encoder and an index of it; `rules` are the folders that the index follows, if it follows any."""

    encoder: Encoder
    index: RuleIndex
    rules: tuple[Path, ...]


def rules_folders(settings: Settings, current: Current | None = None) -> tuple[Path, ...]:
    """The folders that were named, else our own rules, else none.

    An artefact built from a folder that somebody named is served as it was built: our own rules never take
    its place silently.
    """
    if settings.dir:
        return settings.dir
    if current is not None and not current.own_rules:
        return ()
    own = packaged_rules()
    return (own,) if own.is_dir() else ()


def load_or_build(
    settings: Settings, say: Notify, *, build: bool = False, make_current: bool = True, drafts: bool = False
) -> LoadedIndex:
    """Load or build encoder and index; `build` insists on the rules folder and on a written artefact.

    Args:
        make_current: without it these rules are only looked at: what the artefact serves stays what it is.
        drafts: a rulebook of drafts alone will do; these are counted as active, and its index is not kept.

    Raises:
        RuleServiceError: one sentence on what is missing and how to get it.
    """
    artefact = Artefact(settings.artefact)
    current = artefact.current()
    rules = rules_folders(settings, None if build else current)
    if not rules and current is None:
        raise RulebookError(
            "there are no rules: name a rules folder by --rules, or a built artefact by --artefact"
        )
    rulebook = load_rulebook(rules, settings.variables, drafts=drafts) if rules else None
    encoder = open_encoder(settings, say)
    if rulebook is None:
        assert current is not None
        index = artefact.index(current.rulebook, encoder.fingerprint)
        if index is None:
            raise ArtefactError(f"{artefact.folder} holds no index for its encoder: run `ascl-rules build`")
        return LoadedIndex(encoder, index, ())
    drafts_alone = not rulebook.served
    if drafts_alone:
        rulebook = with_drafts_active(rulebook)
    own_rules = not settings.dir
    if current is None and not make_current:
        # An artefact is told its encoder by what is current. Our own rules are followed as before the look.
        make_current = own_rules = True
    index = artefact.index(rulebook.digest, encoder.fingerprint)
    if index is None:
        index = _embed(artefact, current, rulebook, encoder, say)
        if not drafts_alone:
            save_index(artefact, index, own_rules, None if build else say, make_current=make_current)
    elif make_current and current != (new := Current(encoder.fingerprint, rulebook.digest, own_rules)):
        try:
            artefact.point(new)
        except ArtefactError:
            if build:
                raise
    if build:
        artefact.publish(rulebook.digest)
    return LoadedIndex(encoder, index, rules)


def rebuild(
    artefact: Artefact, rulebook: Rulebook, encoder: Encoder, before: RuleIndex, own_rules: bool, say: Notify
) -> RuleIndex:
    """The index of edited rules, made current; the artefact's where the edit goes back to what it keeps."""
    from rule_server.retrieval.index import RuleIndex

    kept_before = _readable(artefact, before.rulebook.digest, before.fingerprint)
    # `calibrate` may have run since `before` was read.
    measured = kept_before.calibration if kept_before is not None else None
    measured = measured or before.calibration
    index = _readable(artefact, rulebook.digest, encoder.fingerprint)
    if index is None:
        index = RuleIndex.build(rulebook, encoder, before.vectors_by_text(), measured)
        save_index(artefact, index, own_rules, say)
        return index
    own = index.calibration
    stale = measured is not None and (own is None or own.rulebook != rulebook.digest)
    if stale:
        index = RuleIndex(index.rulebook, index.fingerprint, index.vectors, measured)
    try:
        if stale and measured is not None:
            artefact.save_calibration(rulebook.digest, measured)
        artefact.point(Current(encoder.fingerprint, rulebook.digest, own_rules))
    except ArtefactError as error:
        say(f"serving from memory: {error}")
    return index


def _readable(artefact: Artefact, digest: str, fingerprint: str) -> RuleIndex | None:
    """What the artefact keeps; a damaged index counts as none, and is built again."""
    try:
        return artefact.index(digest, fingerprint)
    except ArtefactError:
        return None


def save_index(
    artefact: Artefact, index: RuleIndex, own_rules: bool, say: Notify | None, *, make_current: bool = True
) -> None:
    """Save an index. With `say`, a folder that cannot be written is worth a word; without, it is an error."""
    try:
        artefact.save(index, own_rules=own_rules, make_current=make_current)
    except ArtefactError as error:
        if say is None:
            raise
        say(f"serving from memory: {error}")


def open_encoder(settings: Settings, say: Notify) -> Encoder:
    """The artefact's encoder, built if it has none.

    Raises:
        EncoderError: when there is none and none can be built.
    """
    artefact = Artefact(settings.artefact)
    current = artefact.current()
    if current is not None:
        encoder = artefact.encoder(current.encoder, settings.threads)
        if settings.model is None and settings.prefix not in ("", encoder.prefix):
            raise EncoderError(
                f"the encoder in {artefact.folder} was built with another prefix than {settings.prefix!r}: "
                "name its model by --model too, so that one is built with this prefix"
            )
        if settings.model is None or (settings.model, settings.prefix) == (encoder.model, encoder.prefix):
            return encoder
    from rule_server.retrieval.onnx_export import export_encoder

    say(f"building the encoder in {artefact.folder} (once; some seconds)")
    try:
        return export_encoder(artefact, settings.model, settings.threads, settings.prefix)
    except EncoderError as error:
        raise EncoderError(f"there is no usable encoder in {artefact.folder}: {error}") from None


def _embed(
    artefact: Artefact, current: Current | None, rulebook: Rulebook, encoder: Encoder, say: Notify
) -> RuleIndex:
    from rule_server.retrieval.index import RuleIndex

    before = artefact.index(current.rulebook, encoder.fingerprint) if current is not None else None
    known = before.vectors_by_text() if before is not None else {}
    calibration = before.calibration if before is not None else None
    say(f"embedding {rulebook.name} {rulebook.version}, {len(rulebook.served)} rules")
    return RuleIndex.build(rulebook, encoder, known, calibration)


def preview_drafts(prepared: LoadedIndex) -> LoadedIndex:
    """The same, with every draft counted as active; nothing is kept, and no folder is followed."""
    from rule_server.retrieval.index import RuleIndex

    index = prepared.index
    preview = with_drafts_active(index.rulebook)
    known = index.vectors_by_text()
    return replace(
        prepared, index=RuleIndex.build(preview, prepared.encoder, known, index.calibration), rules=()
    )
