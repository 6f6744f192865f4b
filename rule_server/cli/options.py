"""Options, output helpers and progress bars shared by the commands of ascl-rules."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    from collections.abc import Callable

    from rule_server.retrieval import Encoder
    from rule_server.retrieval.encoders.protocol import Vectors
    from rule_server.settings import Settings

Rules = Annotated[
    list[Path] | None,
    typer.Option(
        help="Rules folder; repeatable, later folders override earlier ones (default: ASCL_RULES_DIR, else "
        "the packaged rules).",
        metavar="DIR",
    ),
]
ArtefactDir = Annotated[
    Path | None,
    typer.Option(
        help="Index folder (default: ASCL_RULES_ARTEFACT, else ~/.cache/ascl/rules).", metavar="DIR"
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def print_version(wanted: bool) -> None:
    """Prints the version of ASCL and exits if `--version` was given."""
    if wanted:
        from importlib.metadata import version

        typer.echo(f"ascl {version('ascl')}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=print_version),
]


class _Command(TyperCommand):
    def get_params(self, ctx: Any) -> list[Any]:
        return _with_short_types(super().get_params(ctx), ctx)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        # Lines of a paragraph are joined, because a terminal breaks them at other places.
        self.help = re.sub(r"(?<=\S)\n(?=\S)", " ", self.help or "")
        super().format_help(ctx, formatter)


class _Group(TyperGroup):
    def get_params(self, ctx: Any) -> list[Any]:
        return _with_short_types(super().get_params(ctx), ctx)


def _with_short_types(parameters: list[Any], ctx: Any) -> list[Any]:
    for parameter in parameters:
        if parameter.metavar is None and parameter.param_type_name == "option":
            # An on/off option takes no value; a range is printed beside the type anyway.
            kind = re.sub(r"list\[(.*)\]| range", r"\1", parameter.display_type(ctx))
            parameter.metavar = "" if parameter.is_flag else kind
    return parameters


def shorten_types_in_help(app: typer.Typer) -> None:
    """Shortens the option types in --help: none for on/off options, a short name for numbers."""
    app.info.cls = _Group
    for command in app.registered_commands:
        command.cls = _Command
    for group in app.registered_groups:
        if group.typer_instance is not None:
            shorten_types_in_help(group.typer_instance)


def load_cli_settings(**flags: object) -> Settings:
    """Loads the settings from flags and environment variables. Raises StartError."""
    from rule_server.settings import load_settings

    settings = load_settings(**flags)
    # BLAS and OpenMP read these when numpy and faiss are first imported. Their work here is small, so several
    # threads would only wait for one another. The encoder has its own threads.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    return settings


def notify(message: str) -> None:
    """Prints a message for the user to standard error."""
    typer.echo(f"ascl-rules: {message}", err=True)


def print_json(value: Any) -> None:
    import json

    typer.echo(json.dumps(value, ensure_ascii=False, indent=1))


@contextmanager
def progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Shows a progress bar on standard error for long work. Yields the function that advances it."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=total < 100) as bar:
        task = bar.add_task(label, total=total)
        yield lambda count: bar.update(task, advance=count)


class ProgressEncoder:
    """Encoder that opens on first use and shows a progress bar for many texts."""

    def __init__(self, fingerprint: str, open_encoder: Callable[[], Encoder]) -> None:
        self.fingerprint = fingerprint
        self._open_encoder = open_encoder
        self._encoder: Encoder | None = None

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Returns vectors of questions. Raises what opening the encoder raises."""
        self._encoder = self._encoder or self._open_encoder()
        return self._in_batches(self._encoder.encode, texts)

    def encode_rules(self, texts: Sequence[str]) -> Vectors:
        """Returns vectors of rules' texts. Raises what opening the encoder raises."""
        from rule_server.retrieval.encoders.protocol import encode_rules

        encoder = self._encoder = self._encoder or self._open_encoder()
        return self._in_batches(lambda batch: encode_rules(encoder, batch), texts)

    def _in_batches(self, encode: Callable[[Sequence[str]], Vectors], texts: Sequence[str]) -> Vectors:
        import numpy as np

        step = 64
        with progress("embedding", len(texts)) as advance:
            batches = []
            for start in range(0, max(len(texts), 1), step):
                batches.append(encode(texts[start : start + step]))
                advance(step)
        return np.concatenate(batches)

    @property
    def exact(self) -> ProgressEncoder:
        """The encoder in full precision."""
        from rule_server.retrieval.encoders.protocol import exact_encoder

        return ProgressEncoder(self.fingerprint, lambda: exact_encoder(self._encoder or self._open_encoder()))
