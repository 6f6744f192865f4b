"""Options and manners that the commands of ascl-rules share."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from rule_server.retrieval import Encoder
    from rule_server.retrieval.encoder import Vectors
    from rule_server.settings import Settings

Rules = Annotated[
    list[Path] | None,
    typer.Option(
        help="Rules folder; repeatable, a later one lies over it. Default: ASCL_RULES_DIR, else our own.",
        metavar="DIR",
    ),
]
ArtefactDir = Annotated[
    Path | None,
    typer.Option(help="Index folder. Default: ASCL_RULES_ARTEFACT, else ~/.cache/ascl/rules.", metavar="DIR"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def load_cli_settings(**flags: object) -> Settings:
    """Settings from flags and environment. Raises StartError."""
    from rule_server.settings import load_settings

    settings = load_settings(**flags)
    # Read by BLAS and OpenMP when numpy and faiss are first imported. Their work here is small: more threads
    # than one only wait for each other. The encoder has threads of its own.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    return settings


def notify(message: str) -> None:
    """A line for the person at the terminal, beside what the command prints."""
    typer.echo(f"ascl-rules: {message}", err=True)


def print_json(value: Any) -> None:
    import json

    typer.echo(json.dumps(value, ensure_ascii=False, indent=1))


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Rows in aligned columns, without characters that a terminal would act on."""
    if not rows:
        return
    shown = [["".join(c if c.isprintable() else "?" for c in cell) for cell in row] for row in rows]
    widths = [max(len(row[at]) for row in shown) for at in range(len(shown[0]) - 1)]
    for row in shown:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        typer.echo("  ".join([*cells, row[-1]]).rstrip())


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on standard error for work that may take more than two seconds; yields what moves it on."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=total < 100) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, advance=done)


class WithProgress:
    """An encoder that is opened when it is first needed, and shows how far it is with many texts."""

    def __init__(self, fingerprint: str, open_it: Callable[[], Encoder]) -> None:
        self.fingerprint = fingerprint
        self._open = open_it
        self._encoder: Encoder | None = None

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Vectors (len(texts), dimension). Raises what opening raises."""
        import numpy as np

        self._encoder = self._encoder or self._open()
        step = 64
        with progress("embedding", len(texts)) as advance:
            parts = []
            for start in range(0, max(len(texts), 1), step):
                parts.append(self._encoder.encode(texts[start : start + step]))
                advance(step)
        return np.concatenate(parts)
