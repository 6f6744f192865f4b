"""Tokenises the episodes of a groups file once per run: one process writes, all map the file.

The folder `tokens/` of the run holds `tokens.arrow` and `index.arrow`, which is written last and states the
size, the digest and the key of the former. A run that was killed while writing leaves no index, and a file
that does not match its index is written again. A resumed run reuses both.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow
import pyarrow.ipc

from evaluation.runtime import write_atomic
from trainer.errors import TrainingError
from trainer.groups.parquet import template_options_of
from trainer.stages.logged.credit import is_late
from trainer.stages.logged.dataset.groups import LoggedGroups
from trainer.stages.logged.dataset.token_file import TOKENS, Row, TokenFile, write_token_file
from trainer.stages.run_record import package_versions
from trainer.tokens import EpisodeTokens, ModeLosses, TokenError, episode_tokens

if TYPE_CHECKING:
    from trainer.stages.logged.config import LoggedArguments, LoggedConfig

FOLDER = "tokens"
_FORMAT = 1
_KEY_PACKAGES = ("ascl", "transformers")
_INDEX = {
    "episode": "int64",
    "length": "int32",
    "loss_tokens": "int32",
    "has_logprobs": "bool",
    "logged_logprobs": "bool",
    "late": "bool",
    "decision_start": "int32",
    "decision_end": "int32",
}


@dataclass(frozen=True)
class TokenizedEpisodes:
    """U usable episodes of a groups file, and the counts of the others."""

    tokens: TokenFile
    index: dict[str, npt.NDArray[Any]]
    """(U,) `episode` (its position in the file), `length` (of prompt and completion), `loss_tokens`,
    `has_logprobs`, `logged_logprobs` (also where they cannot be used), `late` (see `is_late`),
    `decision_start`, `decision_end`."""
    losses: ModeLosses
    details: dict[str, str]
    """An example with the id of its episode, by cause."""


def tokenize_once(
    groups: LoggedGroups, tokenizer: Any, arguments: LoggedArguments, config: LoggedConfig
) -> TokenizedEpisodes:
    """Returns the tokens of all usable episodes. Every process must call it; the first one writes the files.

    Args:
        config: `transformers.TrainingArguments`, whose `output_dir` is the run's folder.

    Raises:
        TrainingError: the files cannot be written.
    """
    folder = Path(config.output_dir) / FOLDER
    key = _cache_key(groups, tokenizer, arguments)
    with config.main_process_first(local=False, desc="tokens"):
        if config.process_index == 0 and not _is_complete(folder, key):
            for partial in folder.glob(".*.tmp"):  # of a run that was killed
                partial.unlink(missing_ok=True)
            _write(folder, key, groups, tokenizer, arguments)
    # The first process of another machine, which may not see the folder of the first one.
    with config.main_process_first(local=True, desc="tokens on this machine"):
        if (opened := _open(folder, key)) is None:
            _write(folder, key, groups, tokenizer, arguments)
            opened = _open(folder, key)
    assert opened is not None
    return opened


def remove_tokens(config: LoggedConfig) -> None:
    """Removes the files of a finished run."""
    if config.local_process_index == 0:
        shutil.rmtree(Path(config.output_dir) / FOLDER, ignore_errors=True)


@contextmanager
def tokens_removed_on_error(config: LoggedConfig) -> Iterator[None]:
    """Removes the files if a run is refused within the block, before its first step."""
    try:
        yield
    except TrainingError:
        remove_tokens(config)
        raise


def _cache_key(groups: LoggedGroups, tokenizer: Any, arguments: LoggedArguments) -> str:
    """Digest of all that determines the tokens of the usable episodes."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    vocabulary = backend.to_str() if backend is not None else sorted(tokenizer.get_vocab().items())
    versions = package_versions()
    inputs = {
        "format": _FORMAT,
        "groups": groups.sha256,
        "max_length": arguments.max_length,
        "versions": {name: versions.get(name) for name in _KEY_PACKAGES},
        "tokenizer": [type(tokenizer).__name__, vocabulary, tokenizer.chat_template, tokenizer.init_kwargs],
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True, default=str).encode()).hexdigest()


def _write(folder: Path, key: str, groups: LoggedGroups, tokenizer: Any, arguments: LoggedArguments) -> None:
    losses, details = ModeLosses(), dict[str, str]()
    index = {name: array("q") for name in _INDEX}
    path = folder / "tokens.arrow"
    episodes = _usable_episodes(groups, tokenizer, arguments, losses, details)
    try:
        (folder / "index.arrow").unlink(missing_ok=True)
        write_atomic(path, lambda part: write_token_file(part, TOKENS, _indexed(tokenizer, episodes, index)))
        about = {
            "key": key,
            "bytes": path.stat().st_size,
            "sha256": _sha256(path),
            "totals": losses.totals,
            "by_cause": losses.by_cause,
            "details": details,
        }
        columns = {name: np.array(index[name]).astype(kind) for name, kind in _INDEX.items()}
        table = pyarrow.table(columns).replace_schema_metadata({"ascl": json.dumps(about)})
        write_atomic(folder / "index.arrow", lambda part: _write_table(part, table))
    except OSError as error:
        raise TrainingError(
            f"the tokens of the log cannot be written to {folder} ({error.strerror or error}): free disk "
            "space there (about 10 bytes per token), or use another folder"
        ) from None


def _usable_episodes(
    groups: LoggedGroups,
    tokenizer: Any,
    arguments: LoggedArguments,
    losses: ModeLosses,
    details: dict[str, str],
) -> Iterator[tuple[int, EpisodeTokens, bool]]:
    """Yields each usable episode's position, tokens and whether its log has log-probabilities; counts the
    others in `losses` and `details`."""
    columns = groups.columns
    longest, too_long = 0, f"longer than {arguments.max_length} tokens"
    for position, texts in enumerate(groups.texts()):
        mode = columns["mode"][position]
        losses.totals[mode] += 1
        if not np.isfinite(columns["reward"][position]):
            losses.leave_out("its reward is not a number", mode)
            continue
        turns = json.loads(texts["turns"])
        try:
            tokens = episode_tokens(
                tokenizer,
                json.loads(texts["messages"]),
                json.loads(texts["tools"]),
                turns,
                forced=bool(columns["forced"][position]),
                template_options=template_options_of(texts),
                given=texts["given_messages"],
            )
        except TokenError as cause:
            losses.leave_out(str(cause), mode)
            if cause.detail:
                details.setdefault(str(cause), f"episode {texts['episode_id']}: {cause.detail}")
            continue
        if tokens.length > arguments.max_length:
            losses.leave_out(too_long, mode)
            longest = max(longest, tokens.length)
            details[too_long] = f"the longest episode has {longest} tokens: --max_length {longest} keeps all"
            continue
        yield position, tokens, all(turn.get("logprobs") for turn in turns)


def _indexed(
    tokenizer: Any, episodes: Iterator[tuple[int, EpisodeTokens, bool]], index: dict[str, array[int]]
) -> Iterator[Row]:
    """Yields the rows of the token file, and adds their short columns to `index`."""
    for position, tokens, logged_logprobs in episodes:
        entry = {
            "episode": position,
            "length": tokens.length,
            "loss_tokens": sum(tokens.loss_mask),
            "has_logprobs": tokens.logprobs is not None,
            "logged_logprobs": logged_logprobs,
            "late": is_late(tokenizer, tokens),
            "decision_start": tokens.decision[0],
            "decision_end": tokens.decision[1],
        }
        for name, value in entry.items():
            index[name].append(value)
        yield {name: getattr(tokens, name) for name in TOKENS.names}


def _write_table(path: Path, table: pyarrow.Table) -> None:
    with pyarrow.OSFile(str(path), "wb") as sink, pyarrow.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def _open(folder: Path, key: str) -> TokenizedEpisodes | None:
    """Returns the episodes of a folder; None unless it is complete and was written under this key."""
    path = folder / "tokens.arrow"
    try:
        with pyarrow.OSFile(str(folder / "index.arrow"), "rb") as source:
            table = pyarrow.ipc.open_file(source).read_all()
        about = json.loads(table.schema.metadata[b"ascl"])
        if about["key"] != key or about["bytes"] != path.stat().st_size:
            return None
    except (OSError, ValueError, KeyError, TypeError, pyarrow.ArrowException):
        return None
    losses = ModeLosses()
    losses.totals.update(about["totals"])
    for cause, by_mode in about["by_cause"].items():
        losses.by_cause[cause] = Counter(by_mode)
    columns = {name: table[name].to_numpy() for name in _INDEX}
    return TokenizedEpisodes(TokenFile(path), columns, losses, about["details"])


def _is_complete(folder: Path, key: str) -> bool:
    """Returns whether the folder can be used, its content verified: a damaged file is written again."""
    opened = _open(folder, key)
    if opened is None:
        return False
    with pyarrow.OSFile(str(folder / "index.arrow"), "rb") as source:
        about = json.loads(pyarrow.ipc.open_file(source).schema.metadata[b"ascl"])
    return bool(about["sha256"] == _sha256(opened.tokens.path))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
