"""Loads the prompts of a data set on the Hugging Face hub, or in a folder that `datasets` can read.

    hub:OWNER/NAME?split=test&prompt=question&kind=math&answer=answer
    hub:OWNER/NAME?kind=label&kind.safe=benign_sensitive&kind.unsafe=harmful&category=type

`split` (default `test`) and `config` select the data; `prompt`, `id`, `category` and `answer` name columns.
`messages` names a column of conversations that end with a user message, or with an answer before `prompt`.
Without an id, a row is identified by a digest of its text, not by its number, which other sets use too.
`kind` is one kind for all rows, or a column whose values `kind.VALUE` maps to kinds; rows with a different
value are skipped. The prompts are cached as JSON Lines, so that a resumed run reads the same prompts without
network access; those of a folder are read again when one of its files changes.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any, get_args
from urllib.parse import parse_qsl

from pydantic import ValidationError

from agent.episode import text_digest
from evaluation.errors import PromptError
from evaluation.prompts.schema import Kind, Prompt, first_error
from evaluation.runtime import cache_folder, write_atomic

MAX_ROWS = 200_000
_COLUMNS = ("prompt", "id", "category", "answer", "messages")
_CONTENT = ("prompt", "messages")
_ID_CHARS = 16
_CACHE_VERSION = 2  # of the rows in the cache; version 1 had row numbers as ids


def hub_file(spec: str) -> Path:
    """Returns the cached JSON Lines file of a `hub:` specification; loads the data set on first use.

    Raises:
        PromptError: the specification is invalid, or the data set cannot be loaded or used.
    """
    name, options = _parse(spec)
    state = f"{spec}{_local_state(name)}\nversion {_CACHE_VERSION}"
    digest = hashlib.sha256(state.encode()).hexdigest()[:24]
    path = cache_folder() / "prompts" / f"{digest}.jsonl"
    if path.is_file():
        return path
    rows = _to_rows(_load_dataset(name, options), options, spec)
    _validate(rows, spec)
    write_atomic(path, (json.dumps(row, ensure_ascii=False) for row in rows))
    return path


def _local_state(name: str) -> str:
    """Describes a local folder by its path and its files' sizes and times; "" for a data set on the hub."""
    folder = Path(name)
    if not folder.is_dir():
        return ""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    state = [(str(file), (status := file.stat()).st_size, status.st_mtime_ns) for file in files]
    return f"\n{folder.resolve()}\n{state}"


def _validate(rows: list[dict[str, Any]], spec: str) -> None:
    """Refuses before caching the rows that `load_prompts` would refuse."""
    ids: set[str] = set()
    for number, row in enumerate(rows, 1):
        try:
            prompt = Prompt.model_validate(row)
        except ValidationError as error:
            raise PromptError(f"'{spec}', prompt {number}: {first_error(error)}") from None
        if prompt.id in ids:
            raise PromptError(f"'{spec}', prompt {number}: the id '{prompt.id}' is already used")
        ids.add(prompt.id)


def _parse(spec: str) -> tuple[str, dict[str, str]]:
    """Returns the name of the data set and the options."""
    name, _, query = spec.removeprefix("hub:").partition("?")
    options = dict(parse_qsl(query))
    names = {*_COLUMNS, "kind", "split", "config"}
    unknown = [option for option in options if option not in names and not option.startswith("kind.")]
    if not name or unknown or "kind" not in options:
        reason = f"unknown option '{unknown[0]}'" if unknown else "the name or `kind` is missing"
        raise PromptError(
            f"'{spec}' is not a specification of prompts ({reason}): write "
            "hub:OWNER/NAME?split=test&prompt=COLUMN&kind=harmful, or kind=COLUMN&kind.VALUE=harmful"
        )
    return name, options


def _load_dataset(name: str, options: dict[str, str]) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise PromptError("prompts from the hub need `datasets`: pip install 'ascl[train]'") from error
    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(name, options.get("config"), split=options.get("split", "test"))
    except Exception as error:  # the hub, the network and the builders raise many types
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise PromptError(f"the data set '{name}' cannot be loaded: {reason[:200]}") from error


def _to_rows(data: Any, options: dict[str, str], spec: str) -> list[dict[str, Any]]:
    """Converts the rows of a data set to the fields of `Prompt`."""
    if len(data) > MAX_ROWS:
        raise PromptError(
            f"'{spec}' has more than {MAX_ROWS} rows: choose a smaller split, such as test[:500]"
        )
    columns = {name: options.get(name, name) for name in _COLUMNS}
    # Many data sets have a column of messages that contains the answer, so it is used only if it is named.
    texts = ["messages"] if "messages" in options and "prompt" not in options else ["prompt"]
    required = [columns[name] for name in _COLUMNS if name in options or name in texts]
    constant_kind = options["kind"] if options["kind"] in get_args(Kind) else None
    required += [] if constant_kind else [options["kind"]]
    if missing := next((column for column in required if column not in data.column_names), None):
        raise PromptError(
            f"'{spec}' has no column '{missing}'; its columns are {', '.join(data.column_names)}"
        )
    rows = []
    repetitions: Counter[str] = Counter()
    for entry in data:
        kind = constant_kind or options.get(f"kind.{entry[options['kind']]}")
        if kind is None:
            continue
        content = {name: entry[columns[name]] for name in _CONTENT if name in options or name in texts}
        id = entry.get(columns["id"])
        if id is None:
            text = str(content["prompt"]) if list(content) == ["prompt"] else json.dumps(content)
            id = text_digest(text)[:_ID_CHARS]
            repetitions[id] += 1
            id += f"-{repetitions[id]}" if repetitions[id] > 1 else ""
        row = {"id": str(id), **content, "kind": kind}
        row |= {
            name: str(entry[columns[name]])
            for name in ("category", "answer")
            if name in options and entry[columns[name]] is not None
        }
        rows.append(row)
    if not rows:
        raise PromptError(
            f"'{spec}' selects no rows: do the kind.VALUE options name values of '{options['kind']}'?"
        )
    return rows
