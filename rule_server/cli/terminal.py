"""Prints tables and sentences that fit the width of the terminal."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence

import typer

GAP = "  "
MIN_CELL = 8
"""Width of a text cell, in columns, below which other columns are shortened first."""
MIN_WIDTH = 20
"""Minimum width of the output, in columns, even on a narrower terminal."""


def output_width(*, err: bool = False) -> int | None:
    """Returns the width to fit in columns; None for a pipe or file, which receives whole texts.

    The environment variable COLUMNS overrides the width of any output.
    """
    columns = os.environ.get("COLUMNS", "")
    if columns.isascii() and columns.isdigit() and int(columns):
        return max(int(columns), MIN_WIDTH)
    stream = sys.stderr if err else sys.stdout
    if not stream.isatty():
        return None
    return max(shutil.get_terminal_size().columns, MIN_WIDTH)


def print_table(
    rows: Sequence[Sequence[str]], *, cut: Sequence[int] | None = None, err: bool = False
) -> None:
    """Prints rows in aligned columns, with control characters replaced by `?`.

    If the rows are wider than the output, the widest columns of `cut` are shortened, marked by `…`.

    Args:
        cut: columns that may be shortened, by position; None: the last one. The others are shortened only if
            that does not suffice.
        err: print to standard error.
    """
    if not rows:
        return
    from rich.cells import cell_len, set_cell_size

    printable = [[_printable(cell) for cell in row] for row in rows]
    widths = [max(cell_len(row[at]) for row in printable) for at in range(len(printable[0]))]
    width = output_width(err=err)
    if width is not None:
        flexible = range(len(widths))[-1:] if cut is None else cut
        _shrink(widths, width - len(GAP) * (len(widths) - 1), flexible)
    for row in printable:
        cells = []
        for cell, room in zip(row, widths, strict=True):
            fits = cell_len(cell) <= room
            cells.append(set_cell_size(cell if fits else set_cell_size(cell, room - 1).rstrip() + "…", room))
        typer.echo(GAP.join(cells).rstrip(), err=err)


def print_text(text: str, *, indent: str = "", err: bool = False) -> None:
    """Prints text. Lines wider than the output continue on the next line after `indent`."""
    width = output_width(err=err)
    for line in text.split("\n"):
        for part in _wrap(line, width, indent) if width is not None else [line]:
            typer.echo(part, err=err)


def _wrap(line: str, width: int, indent: str) -> list[str]:
    """Breaks a line at spaces, and a word that is wider than the output anywhere."""
    from rich.cells import cell_len, chop_cells

    if cell_len(line) <= width:
        return [line]
    lead = line[: len(line) - len(line.lstrip())]
    parts = [lead]
    for word in line.split():
        gap = "" if parts[-1] in (lead, indent) else " "
        if cell_len(parts[-1] + gap + word) <= width:
            parts[-1] += gap + word
            continue
        first, *rest = chop_cells(word, max(width - len(indent), 1))
        parts += [indent + piece for piece in (first, *rest)]
    return [part for part in parts if part.strip()]


def _printable(cell: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in cell)


def _shrink(widths: list[int], room: int, flexible: Sequence[int]) -> None:
    """Shrinks the widest columns until their sum fits: `flexible` ones first, then all, down to 2."""
    for columns, smallest in ((flexible, MIN_CELL), (range(len(widths)), MIN_CELL), (range(len(widths)), 2)):
        while sum(widths) > room:
            widest = max(columns, key=lambda at: widths[at], default=None)
            if widest is None or widths[widest] <= smallest:
                break
            widths[widest] -= 1
