"""Metrics of a run, read from its folder: one point per step of a stage, or per round of a loop."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.errors import TrainerError


class HistoryError(TrainerError):
    """A folder without a readable run."""


@dataclass(frozen=True)
class History:
    """The metrics of one run."""

    name: str
    title: str
    axis: str
    """`step` or `round`."""
    points: list[tuple[float, dict[str, float]]]
    """Position on the axis, and the metrics recorded there."""

    def series(self, metric: str) -> tuple[list[float], list[float]]:
        """Returns the positions at which a metric was recorded, and its values."""
        recorded = [(position, values[metric]) for position, values in self.points if metric in values]
        return [position for position, _ in recorded], [value for _, value in recorded]

    def metrics(self) -> list[str]:
        """Returns the names of all recorded metrics."""
        return sorted({name for _, values in self.points for name in values})


def read_history(folder: Path) -> History:
    """Reads the history of a stage's folder (`run.json`) or of a loop's folder (`rounds/`).

    Raises:
        HistoryError: the folder is neither, or cannot be read.
    """
    try:
        return _read_history(folder)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise HistoryError(
            f"'{folder}' contains metrics in an unknown format ({type(error).__name__}: {error}): pass an "
            "unmodified run folder of ascl-train"
        ) from None


def _read_history(folder: Path) -> History:
    rounds = sorted((folder / "rounds").glob("[0-9]*")) if (folder / "rounds").is_dir() else []
    points = [point for number, each in enumerate(rounds, 1) if (point := _round_point(number, each))]
    if points:
        return History(folder.name, f"{folder.name}, {len(points)} rounds", "round", points)
    record = _read_json(folder / "run.json")
    if record is None:
        raise HistoryError(
            f"'{folder}' contains no run: pass a folder with run.json (of a stage) or rounds/ (of a loop)"
        )
    points = [(float(entry["step"]), _numbers(entry)) for entry in _steps(record) if "step" in entry]
    if start := _start_metrics(record):
        points.insert(0, (0.0, start))
    title = f"{folder.name}: {record.get('stage', '')} {record.get('method', '')}".strip()
    return History(folder.name, title, "step", points)


def _round_point(number: int, folder: Path) -> tuple[float, dict[str, float]] | None:
    values: dict[str, float] = {}
    if statistics := _read_json(folder / "statistics.json"):
        values |= statistics_metrics(statistics)
    if (record := _read_json(folder / "trained" / "run.json")) and (steps := _steps(record)):
        values |= {name: value for name, value in _numbers(steps[-1]).items() if not name.startswith("ifpo/")}
    return (float(number), values) if values else None


def _steps(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the metrics by step. A cold start has losses instead, and the number of steps as `steps`."""
    steps = record.get("steps")
    return steps if isinstance(steps, list) else record.get("losses") or []


def _start_metrics(record: dict[str, Any]) -> dict[str, float]:
    """Returns the metrics of the groups that a run was trained on; empty if it recorded none.

    Runs of version 0.1.0 recorded the path and the digest of the file instead. A relative path may lead to
    another file from here, so the digest must agree.
    """
    if statistics := record.get("groups"):
        return statistics_metrics(statistics)
    groups = Path(str((record.get("arguments") or {}).get("groups") or ""))
    digest = (record.get("data") or {}).get("groups_sha256")
    if not groups.is_file() or digest is None:
        return {}
    with groups.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != digest:
            return {}
    return _groups_metrics(groups)


def _groups_metrics(groups: Path) -> dict[str, float]:
    from trainer.errors import GroupError
    from trainer.groups.statistics import group_statistics

    try:
        return statistics_metrics(group_statistics(groups).as_json())
    except GroupError:  # a different version wrote the file
        return {}


def statistics_metrics(statistics: dict[str, Any]) -> dict[str, float]:
    """Converts group statistics to the metric names that a trainer logs."""
    values: dict[str, float | None] = {
        "ifpo/one_mode_groups": statistics["one_mode_groups"] / max(statistics["groups"], 1),
        "ifpo/equal_reward_groups": statistics["equal_reward_groups"] / max(statistics["groups"], 1),
        "ifpo/largest_weight": statistics["largest_weight"],
        "ifpo/effective_share": statistics["effective_share"],
    }
    by_mode: dict[str, list[tuple[int, float]]] = {"consult": [], "direct": []}
    for name, kind in statistics["kinds"].items():
        values[f"ifpo/consult_rate/{name}"] = kind["consult"]["share"]
        values[f"ifpo/reward/{name}"] = kind["reward"]
        consulting = kind.get("consulting", kind["consult"]["hits"])  # absent in older files
        for mode, count in (("consult", consulting), ("direct", kind["episodes"] - consulting)):
            if kind[f"reward_{mode}"] is not None:
                by_mode[mode].append((count, kind[f"reward_{mode}"]))
    for mode, means in by_mode.items():
        if means:
            total = sum(count for count, _ in means)
            values[f"ifpo/reward/{mode}"] = sum(count * mean for count, mean in means) / total
    return {name: float(value) for name, value in values.items() if value is not None}


def _numbers(entry: dict[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in entry.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise HistoryError(f"{path} is not JSON: {error}") from None
    return value if isinstance(value, dict) else None
