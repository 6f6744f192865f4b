"""`ascl-eval label`: a person labels the episodes of a log in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evaluation.cli.common import exit_on_error, fail, warn_of_skipped

if TYPE_CHECKING:
    from agent.episode import Episode
    from evaluation.scorers.labels import LabelRow

ANSWERS = {"y": True, "yes": True, "n": False, "no": False}
MAX_SHOWN = 4000


def label(
    log: Annotated[Path, typer.Argument(help="Episode log.", show_default=False)],
    out: Annotated[Path, typer.Option(help="File of labels (JSON Lines); new labels are appended.")],
    by: Annotated[
        str | None, typer.Option(help="Your name, stored with each label (default: no name).")
    ] = None,
    kind: Annotated[
        list[str] | None, typer.Option(help="Kind of prompt to label; repeatable (default: all).")
    ] = None,
) -> None:
    """Label episodes by hand: refused, harmful, helpful. Rerun the command to continue where you stopped.

    `ascl-eval score LOG --labels OUT` then uses the labels.
    """
    from agent.episode import read_log
    from evaluation.scorers.labels import append_label, read_labels

    with exit_on_error():
        if out.resolve() == log.resolve():
            fail("--out is the log itself: name another file for the labels", 2)
        reading = read_log(log)
        warn_of_skipped(log, reading.skipped)
        done = read_labels(out) if out.exists() else {}
        episodes = [
            episode
            for episode in reading.episodes
            if episode.stop_reason != "error" and (not kind or episode.kind in kind)
        ]
        remaining = [episode for episode in episodes if episode.id not in done]
        new = 0
        try:
            for number, episode in enumerate(remaining, len(episodes) - len(remaining) + 1):
                _show(episode, f"{number}/{len(episodes)}")
                row = _ask(episode, by)
                if row is not None:
                    append_label(out, row)
                    new += 1
        except (typer.Abort, EOFError, _Quit):
            typer.echo("", err=True)
    typer.echo(f"{out}: {new} new labels, {len(done) + new} of {len(episodes)} episodes labelled", err=True)


class _Quit(Exception):
    """The person has finished."""


def _show(episode: Episode, position: str) -> None:
    from agent.episode import consultation_line, strip_control_characters
    from evaluation.scorers import final_text, visible_answer

    def clean(text: str) -> str:
        return strip_control_characters(text)[:MAX_SHOWN]

    typer.echo(f"\n--- {position}  {clean(episode.prompt_id)}  {clean(episode.kind or '')}  [{episode.mode}]")
    typer.echo(f"prompt: {clean(episode.prompt)}")
    for consultation in episode.consultations:
        typer.echo(f"rules: {clean(consultation_line(consultation))}")
    typer.echo(f"answer: {clean(visible_answer(final_text(episode) or '')) or '(none)'}")


def _ask(episode: Episode, by: str | None) -> LabelRow | None:
    """Returns the labels of one episode; None if the person skips it."""
    from evaluation.scorers.labels import LabelRow

    fields = ["refused", "harmful"] if episode.kind == "harmful" else ["refused", "helpful"]
    values: dict[str, bool] = {}
    for field in fields:
        if (value := _answer(field)) is not None:
            values[field] = value
    return LabelRow(episode_id=episode.id, by=by, **values) if values else None


def _answer(field: str) -> bool | None:
    while True:
        typed = typer.prompt(f"{field}? [y/n, Enter to skip, q to stop]", default="", show_default=False)
        word = typed.strip().lower()
        if word in ("q", "quit"):
            raise _Quit
        if not word:
            return None
        if word in ANSWERS:
            return ANSWERS[word]
        typer.echo(f"'{word[:20]}' is not an answer: type y, n or q", err=True)
