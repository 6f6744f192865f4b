"""Fetches a suite from the Hugging Face hub, or from a folder with the downloaded data sets.

Such a folder holds one file for each split, `OWNER/NAME/[CONFIG/]SPLIT.jsonl` (or .json, .csv, .tsv,
.parquet); a file from a URL keeps its own name. The prompts are cached, so that a resumed run needs no
network access.
"""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from evaluation.errors import PromptError
from evaluation.prompts.suites.preset import Source, Suite
from evaluation.prompts.suites.registry import find_suites
from evaluation.prompts.suites.rows import Row, to_prompts
from evaluation.runtime import cache_folder, write_atomic

_CACHE_VERSION = 1
_READERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}


def suite_file(spec: str) -> Path:
    """Returns the cached JSON Lines file of `suite:NAME[,NAME...][?limit=N&data=FOLDER]`.

    `limit` is the maximum number of prompts of each suite, drawn by a fixed seed. The name may be that of a
    group, such as `paper`.

    Raises:
        PromptError: a suite is unknown, or its data cannot be loaded or has other columns than published.
    """
    names, limit, folder = _parse(spec)
    suites = find_suites(names)
    state = json.dumps([_CACHE_VERSION, [repr(suite) for suite in suites], limit, _folder_state(folder)])
    path = cache_folder() / "prompts" / f"suite-{hashlib.sha256(state.encode()).hexdigest()[:24]}.jsonl"
    if not path.is_file():
        rows = [row for suite in suites for row in _suite_rows(suite, limit, folder)]
        write_atomic(path, (json.dumps(row, ensure_ascii=False) for row in rows))
    return path


def _parse(spec: str) -> tuple[list[str], int | None, Path | None]:
    names, _, query = spec.removeprefix("suite:").partition("?")
    options = dict(parse_qsl(query))
    if unknown := options.keys() - {"limit", "data"}:
        raise PromptError(f"'{spec}' has the unknown option '{min(unknown)}': use limit and data")
    limit = options.get("limit")
    if limit is not None and not (limit.isascii() and limit.isdigit() and int(limit) > 0):
        raise PromptError(f"limit '{limit}' of '{spec}' is not a number of prompts: write limit=200")
    folder = Path(options["data"]) if "data" in options else None
    if folder is not None and not folder.is_dir():
        raise PromptError(f"the folder of data sets '{folder}' does not exist: pass one, or leave data out")
    return [name for name in names.split(",") if name], int(limit) if limit else None, folder


def _folder_state(folder: Path | None) -> list[Any] | None:
    if folder is None:
        return None
    files = sorted(file for file in folder.rglob("*") if file.suffix in _READERS)
    return [
        str(folder.resolve()),
        *((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files),
    ]


def _suite_rows(suite: Suite, limit: int | None, folder: Path | None) -> list[Row]:
    rows: list[Row] = []
    seen: set[str] = set()
    for source in suite.sources:
        data = _load(suite, source, folder)
        if missing := [column for column in source.columns if column not in data.column_names]:
            raise PromptError(
                f"suite {suite.name}: {source.label} has no column '{missing[0]}', as it had when published "
                f"(its columns are {', '.join(data.column_names)}): pass its prompts with --prompts hub:..."
            )
        rows += [row for row in to_prompts(suite, source, data) if row["id"] not in seen]
        seen |= {row["id"] for row in rows}
    if not rows:
        raise PromptError(f"suite {suite.name} selects no rows of {suite.sources[0].label}")
    return _drawn(rows, limit)


def _drawn(rows: list[Row], limit: int | None) -> list[Row]:
    """Returns at most `limit` rows in their order, the same in every run."""
    if limit is None or limit >= len(rows):
        return rows
    drawn = random.Random(0)  # noqa: S311 - for a fixed choice, not for secrets
    chosen = sorted(drawn.sample(range(len(rows)), limit))
    return [rows[at] for at in chosen]


def _load(suite: Suite, source: Source, folder: Path | None) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise PromptError("suites need `datasets`: pip install 'ascl[train]'") from error
    datasets.disable_progress_bars()
    try:
        if folder is not None:
            file = _local_file(suite, source, folder)
            return datasets.load_dataset(
                _READERS[file.suffix],
                data_files=str(file),
                split="train",
                **_reader_options(source, file.suffix),
            )
        if urlsplit(source.data).scheme:
            return datasets.load_dataset("csv", data_files=source.data, split=source.split)
        options = _reader_options(source, ".tsv")
        return datasets.load_dataset(source.data, source.config, split=source.split, **options)
    except PromptError:
        raise
    except Exception as error:  # the hub, the network and the readers raise many types
        raise _load_error(suite, source, folder, error) from error


def _reader_options(source: Source, suffix: str) -> dict[str, Any]:
    """Options of the reader of a table; other files need none."""
    if not source.options or suffix not in (".tsv", ".csv"):
        return {}
    options: dict[str, Any] = {"keep_default_na": False}
    if suffix == ".tsv":
        options["delimiter"] = source.options["delimiter"]
    return options


def _local_file(suite: Suite, source: Source, folder: Path) -> Path:
    address = urlsplit(source.data)
    if address.scheme:
        stem = folder / Path(address.path).stem
    else:
        stem = folder / source.data / (source.config or "") / source.split
    for suffix in _READERS:
        if (file := stem.with_name(stem.name + suffix)).is_file():
            return file
    raise PromptError(
        f"suite {suite.name}: {stem}.jsonl does not exist (nor .csv, .tsv or .parquet): "
        f"put {source.label} there, or leave data out to fetch it"
    )


def _load_error(suite: Suite, source: Source, folder: Path | None, error: Exception) -> PromptError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    if folder is not None:
        return PromptError(f"suite {suite.name}: {source.label} cannot be read: {reason}")
    if suite.gated:
        return PromptError(
            f"suite {suite.name}: {source.data} is gated: accept its terms at "
            f"https://huggingface.co/datasets/{source.data}, then log in with `hf auth login` or set "
            f"HF_TOKEN ({reason})"
        )
    return PromptError(
        f"suite {suite.name}: {source.label} cannot be fetched ({reason}): check the network connection, or "
        "pass a folder with the downloaded data by --suite-data"
    )
