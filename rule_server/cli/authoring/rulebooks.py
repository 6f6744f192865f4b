"""Opens the rulebooks that a command names, and asks them questions as the service does."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rule_server.cli.options import ProgressEncoder, notify, progress
from rule_server.errors import RulebookError

if TYPE_CHECKING:
    from rule_server.authoring import Question
    from rule_server.authoring.sources import Source
    from rule_server.retrieval.artefact import Artefact
    from rule_server.rulebook import Rulebook
    from rule_server.schemas import ConsultResponse
    from rule_server.settings import Settings


def open_rulebook(spec: str, settings: Settings, folder: Path | None = None) -> Rulebook:
    """Opens a rulebook by its folder, its digest or a git revision of `folder`."""
    return find_source(spec, settings, folder).rulebook


def find_source(spec: str, settings: Settings, folder: Path | None = None) -> Source:
    """Opens a rulebook by its folder, its digest or a git revision of `folder`, with its expected results."""
    from rule_server.authoring.sources import open_source
    from rule_server.retrieval.artefact import Artefact
    from rule_server.settings import packaged_rules

    local = Path("rules")
    default = local if (local / "rulebook.yaml").is_file() else packaged_rules()
    several = folder is None and settings.dir is not None and len(settings.dir) > 1
    if several and not Path(spec).is_dir() and not re.fullmatch("[0-9a-fA-F]{6,64}", spec):
        raise RulebookError(
            f"{spec}: a git revision can be looked up in one rules folder only, and several are set: "
            "specify one with --rules, or compare with a digest that `ascl-rules rollback` lists"
        )
    rules = folder or (settings.dir[-1] if settings.dir else default)
    return open_source(spec, Artefact(settings.artefact), rules, settings.variables)


def served_rulebook(settings: Settings) -> Rulebook:
    """Returns the rulebook that `serve` would serve: from the rules folders, else from the artefact."""
    from rule_server.retrieval.artefact import Artefact
    from rule_server.retrieval.build import rules_folders
    from rule_server.retrieval.versions import load_version
    from rule_server.rulebook import load_rulebook

    artefact = Artefact(settings.artefact)
    current = artefact.current()
    folders = rules_folders(settings, current)
    if folders:
        return load_rulebook(folders, settings.variables)
    if current is None:
        raise RulebookError(
            "there are no rules: specify a rules folder with --rules, or a built artefact with --artefact"
        )
    return load_version(artefact, current.rulebook)


def answer_with_served_rules(
    settings: Settings, questions: Sequence[Question]
) -> tuple[Rulebook, list[list[str]]]:
    """Returns the served rulebook, and the IDs of the rules that it returns for each question."""
    book = served_rulebook(settings)
    if not questions:
        return book, []
    from rule_server.authoring import rule_ids

    [answers] = answers_of([book], questions, settings)
    return book, [rule_ids(answer) for answer in answers]


def answers_of(
    books: Sequence[Rulebook], questions: Sequence[Question], settings: Settings
) -> list[list[ConsultResponse]]:
    """Returns each rulebook's responses to each question. The artefact's current rulebook does not change."""
    from rule_server.authoring.replay import replay
    from rule_server.retrieval.artefact import Artefact
    from rule_server.retrieval.build import open_encoder
    from rule_server.retrieval.versions import index_for

    encoder = open_encoder(settings, notify)
    store = Artefact(settings.artefact)
    with_progress = ProgressEncoder(encoder.fingerprint, lambda: encoder)
    indexes = [index_for(book, store, with_progress) for book in books]
    with progress("querying", len(questions)) as advance:
        return replay(indexes, encoder, settings, [question.text for question in questions], advance)


def rulebook_dict(book: Rulebook, spec: str | None = None) -> dict[str, str]:
    source = {} if spec is None else {"spec": spec}
    return source | {"name": book.name, "version": book.version, "digest": book.digest}


def stored_encoder(settings: Settings, skipped: str) -> tuple[Artefact, ProgressEncoder] | None:
    """Returns the artefact and its encoder. If it has none, tells the user what is skipped."""
    from rule_server.errors import ArtefactError
    from rule_server.retrieval.artefact import Artefact

    store = Artefact(settings.artefact)
    try:
        current = store.current()
    except ArtefactError as error:
        notify(f"skipped: {skipped} ({error})")
        return None
    if current is None or not store.has_encoder(current.encoder):
        notify(f"skipped: {skipped} ({settings.artefact} contains no encoder: run `ascl-rules build` once)")
        return None
    options = (current.encoder, settings.threads, settings.precision)
    return store, ProgressEncoder(current.encoder, lambda: store.encoder(*options))
