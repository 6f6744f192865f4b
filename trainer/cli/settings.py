"""`ascl-train settings`: every setting of a stage, with type, default and meaning."""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Annotated, Any, Literal

import typer

from trainer.cli.common import AsJson, exit_on_error, let_idle_threads_sleep

StageName = Literal["sft", "logged", "online"]
ORIGINS = ("ascl", "trl", "transformers")


@dataclass(frozen=True)
class Setting:
    """One setting of a stage."""

    name: str
    type: str
    default: Any
    required: bool
    meaning: str
    origin: str
    """Which package defines the setting, or its default: one of `ORIGINS`."""


def settings(
    stage: Annotated[StageName, typer.Argument(help="Stage.", show_default=False)],
    all_: Annotated[
        bool, typer.Option("--all", help="Also list the settings of transformers' TrainingArguments.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List every setting of a stage: name, type, default and meaning. JSON output always lists all.

    `sft` takes its settings as options. `logged` and `online` also read them from a YAML file.
    """
    let_idle_threads_sleep()
    with exit_on_error():
        rows = stage_settings(stage)
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows], ensure_ascii=False, default=str))
        return
    shown = [row for row in rows if all_ or row.origin != "transformers"]
    _print_table(shown)
    if len(shown) < len(rows):
        typer.echo(f"and {len(rows) - len(shown)} of transformers' TrainingArguments: pass --all", err=True)


def stage_settings(stage: StageName) -> list[Setting]:
    """Returns the settings of a stage in the order of the code, ASCL's own first."""
    if stage == "sft":
        from trainer.stages.sft.stage import SFTSettings

        return [
            Setting(
                name,
                _type_name(field.annotation),
                None if field.is_required() else field.default,
                field.is_required(),
                _one_line(field.description),
                "ascl",
            )
            for name, field in SFTSettings.model_fields.items()
        ]
    if stage == "logged":
        from trainer.stages.logged.config import LoggedArguments, LoggedConfig

        return _of_dataclasses(LoggedArguments, LoggedConfig)
    from trainer.stages.online.config import OnlineArguments, OnlineConfig

    return _of_dataclasses(OnlineArguments, OnlineConfig)


def _of_dataclasses(*kinds: type[Any]) -> list[Setting]:
    rows = [row for kind in kinds for row in _of_dataclass(kind)]
    current = [row for row in rows if not row.meaning.startswith("Old name of")]
    return sorted(current, key=lambda row: ORIGINS.index(row.origin))


def _of_dataclass(kind: type[Any]) -> list[Setting]:
    rows = []
    for field in fields(kind):
        # The nearest class that states the setting: ASCL overrides some defaults of TRL.
        owner = next(base for base in kind.__mro__ if field.name in inspect.get_annotations(base))
        required = field.default is MISSING and field.default_factory is MISSING
        default = field.default if field.default is not MISSING else None
        if field.default_factory is not MISSING:
            default = field.default_factory()
        rows.append(
            Setting(
                field.name,
                _type_name(field.type),
                default,
                required,
                _one_line(field.metadata.get("help")),
                {"trainer": "ascl", "trl": "trl"}.get(owner.__module__.partition(".")[0], "transformers"),
            )
        )
    return rows


def _type_name(annotation: Any) -> str:
    name = annotation if isinstance(annotation, str) else str(annotation)
    if isinstance(annotation, type):
        name = annotation.__name__
    for prefix in ("typing.", "pathlib._local.", "pathlib."):
        name = name.replace(prefix, "")
    return re.sub(r"Literal\[(.*?)\]", lambda found: found[1].replace("'", "").replace(", ", " | "), name)


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def _print_table(rows: list[Setting]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading, ratio in (("setting", 5), ("type", 3), ("default", 3), ("meaning", 9)):
        table.add_column(heading, overflow="fold", ratio=ratio)
    for row in rows:
        default = "(required)" if row.required else _default_text(row.default)
        table.add_row(*(escape(cell) for cell in (row.name, row.type, default, row.meaning)))
    Console(highlight=False).print(table)


def _default_text(default: Any) -> str:
    return "none" if default is None else json.dumps(default, default=str)
