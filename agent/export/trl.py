"""Exports conversations to a Parquet file that TRL's `SFTTrainer` reads without conversion.

The column types are declared: inference fails when direct episodes precede episodes with consultations. Call
arguments are objects, because chat templates serialise them to JSON themselves.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from agent.endpoint import RESPONSE_ITEMS, parse_arguments
from agent.episode import Episode, Message
from agent.errors import ExportError


def write_trl(episodes: Iterable[Episode], path: Path) -> int:
    """Writes a row for each episode that has an answer, and returns the number of rows.

    Columns: `messages` and `tools` (read by TRL), `prompt_id`, `kind`, `mode`, `episode_id`.

    Raises:
        ExportError: if no episode has an answer, or `datasets` is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise ExportError("the export to TRL needs `datasets`: pip install 'ascl[train]'") from error
    rows = [row for episode in episodes if (row := to_trl_row(episode)) is not None]
    if not rows:
        raise ExportError("no episode of the log has an answer to train on")
    features = datasets.Features(
        {
            "messages": datasets.List(datasets.Json()),
            "tools": datasets.List(datasets.Json()),
            "prompt_id": datasets.Value("string"),
            "kind": datasets.Value("string"),
            "mode": datasets.Value("string"),
            "episode_id": datasets.Value("string"),
        }
    )
    datasets.disable_progress_bars()
    datasets.Dataset.from_list(rows, features=features).to_parquet(str(path))
    return len(rows)


def to_trl_row(episode: Episode) -> dict[str, Any] | None:
    """Returns a row; None for an episode without an answer, or with arguments that are not a JSON object."""
    if episode.answer is None:
        return None
    try:
        messages = [_training_message(message) for message in episode.messages]
    except ValueError:
        return None
    return {
        "messages": messages,
        "tools": episode.tools,
        "prompt_id": episode.prompt_id,
        "kind": episode.kind,
        "mode": episode.mode,
        "episode_id": episode.id,
    }


def _training_message(message: Message) -> Message:
    message = {name: value for name, value in message.items() if name != RESPONSE_ITEMS}
    if not message.get("tool_calls"):
        return message
    calls = []
    for entry in message["tool_calls"]:
        function = entry["function"]
        parsed, problem = parse_arguments(function["arguments"])
        if problem is not None:
            raise ValueError(problem)
        calls.append({**entry, "function": {**function, "arguments": parsed}})
    return {**message, "content": message.get("content") or "", "tool_calls": calls}
