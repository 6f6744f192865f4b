"""Prompts of a data set on the Hugging Face hub (or in a folder that `datasets` reads), by one line of text.

    hub:OWNER/NAME?split=test&prompt=question&kind=math&answer=answer
    hub:OWNER/NAME?kind=label&kind.safe=benign_sensitive&kind.unsafe=harmful&category=type

`split` (default `test`) and `config` say what to load; `prompt`, `id`, `category` and `answer` name columns;
`kind` names one of our kinds for every row, or a column, whose values `kind.VALUE` turn into ours. Rows whose
value is not named are left out. The prompts are kept as JSON Lines in the user's cache, so that a run that is
resumed reads the same ones, without a network; those of a folder until one of its files changes.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, get_args
from urllib.parse import parse_qsl

from pydantic import ValidationError

from evaluation.prompts.schema import Kind, Prompt, PromptError, first_error
from evaluation.runtime import write_atomic

_COLUMNS = ("prompt", "id", "category", "answer")
MOST_ROWS = 200_000


def hub_file(spec: str) -> Path:
    """The JSON Lines file of a `hub:` line, made on first use.

    Raises:
        PromptError: when the line cannot be understood, or the data set not loaded or used.
    """
    name, options = _parsed(spec)
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ascl" / "prompts"
    path = folder / f"{hashlib.sha256((spec + _local_state(name)).encode()).hexdigest()[:24]}.jsonl"
    if path.is_file():
        return path
    rows = _rows(_loaded(name, options), options, spec)
    _check(rows, spec)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, [json.dumps(row, ensure_ascii=False) for row in rows])
    return path


def _local_state(name: str) -> str:
    """Which folder a name stands for here, and what its files were when last changed; empty for the hub's."""
    local = Path(name)
    if not local.is_dir():
        return ""
    files = sorted(file for file in local.rglob("*") if file.is_file())
    state = [(str(file), (told := file.stat()).st_size, told.st_mtime_ns) for file in files]
    return f"\n{local.resolve()}\n{state}"


def _check(rows: list[dict[str, Any]], spec: str) -> None:
    """Refuse what `load_prompts` would, before it is kept."""
    seen: set[str] = set()
    for number, row in enumerate(rows, 1):
        try:
            prompt = Prompt.model_validate(row)
        except ValidationError as error:
            raise PromptError(f"'{spec}', prompt {number}: {first_error(error)}") from None
        if prompt.id in seen:
            raise PromptError(f"'{spec}', prompt {number}: the id '{prompt.id}' is already used")
        seen.add(prompt.id)


def _parsed(spec: str) -> tuple[str, dict[str, str]]:
    name, _, query = spec.removeprefix("hub:").partition("?")
    options = dict(parse_qsl(query))
    known = {*_COLUMNS, "kind", "split", "config"}
    unknown = [option for option in options if option not in known and not option.startswith("kind.")]
    if not name or unknown or "kind" not in options:
        why = f"it does not know '{unknown[0]}'" if unknown else "the name or `kind` is missing"
        raise PromptError(
            f"'{spec}' names no prompts ({why}): write hub:OWNER/NAME?split=test&prompt=COLUMN&kind=harmful, "
            "or kind=COLUMN&kind.VALUE=harmful"
        )
    return name, options


def _loaded(name: str, options: dict[str, str]) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise PromptError("prompts of the hub need `datasets`: pip install 'ascl[train]'") from error
    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(name, options.get("config"), split=options.get("split", "test"))
    except Exception as error:  # whatever the hub, the network or a builder raises
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise PromptError(f"the data set '{name}' cannot be loaded: {first[:200]}") from error


def _rows(data: Any, options: dict[str, str], spec: str) -> list[dict[str, Any]]:
    if len(data) > MOST_ROWS:
        raise PromptError(
            f"'{spec}' has more than {MOST_ROWS} rows: choose a smaller split, such as test[:500]"
        )
    columns = {name: options.get(name, name) for name in _COLUMNS}
    needed = [columns["prompt"], *(columns[name] for name in _COLUMNS if name in options)]
    fixed = options["kind"] if options["kind"] in get_args(Kind) else None
    needed += [] if fixed else [options["kind"]]
    if missing := next((column for column in needed if column not in data.column_names), None):
        raise PromptError(
            f"'{spec}' has no column '{missing}'; its columns are {', '.join(data.column_names)}"
        )
    rows = []
    for number, entry in enumerate(data):
        kind = fixed or options.get(f"kind.{entry[options['kind']]}")
        if kind is None:
            continue
        row = {"id": str(entry.get(columns["id"], number)), "prompt": entry[columns["prompt"]], "kind": kind}
        row |= {
            name: str(entry[columns[name]])
            for name in ("category", "answer")
            if name in options and entry[columns[name]] is not None
        }
        rows.append(row)
    if not rows:
        raise PromptError(
            f"'{spec}' leaves no row: do the kind.VALUE options name values of '{options['kind']}'?"
        )
    return rows
