"""What a run's folder says of how it went: figures by step, or by round of a loop."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.errors import TrainerError


class HistoryError(TrainerError):
    """A folder that holds no run."""


@dataclass(frozen=True)
class History:
    """One run: its name, and figures by place (a step or a round)."""

    name: str
    title: str
    axis: str
    """`step` or `round`."""
    points: list[tuple[float, dict[str, float]]]

    def series(self, metric: str) -> tuple[list[float], list[float]]:
        """Places and values where the metric was recorded."""
        here = [(place, values[metric]) for place, values in self.points if metric in values]
        return [place for place, _ in here], [value for _, value in here]

    def metrics(self) -> list[str]:
        """Names of all that was recorded."""
        return sorted({name for _, values in self.points for name in values})


def read_history(folder: Path) -> History:
    """The history of a stage's folder (`run.json`) or of a loop's (`rounds/`).

    Raises:
        HistoryError: it is neither, or cannot be read.
    """
    try:
        return _history(folder)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise HistoryError(
            f"'{folder}' holds figures of another form ({type(error).__name__}: {error}): pass the folder "
            "of a run as ascl-train left it"
        ) from None


def _history(folder: Path) -> History:
    rounds = sorted((folder / "rounds").glob("[0-9]*")) if (folder / "rounds").is_dir() else []
    points = [point for place, each in enumerate(rounds, 1) if (point := _round(place, each))]
    if points:
        return History(folder.name, f"{folder.name}, {len(points)} rounds", "round", points)
    record = _json(folder / "run.json")
    if record is None:
        raise HistoryError(
            f"'{folder}' holds no run: pass a folder with run.json (of a stage) or rounds/ (of a loop)"
        )
    points = [(float(entry["step"]), _numbers(entry)) for entry in _steps(record) if "step" in entry]
    groups = Path(str((record.get("arguments") or {}).get("groups") or ""))
    if groups.is_file() and (sampled := _sampled(groups)):
        points.insert(0, (0.0, sampled))
    title = f"{folder.name}: {record.get('stage', '')} {record.get('method', '')}".strip()
    return History(folder.name, title, "step", points)


def _round(place: int, folder: Path) -> tuple[float, dict[str, float]] | None:
    values: dict[str, float] = {}
    if statistics := _json(folder / "statistics.json"):
        values |= statistics_metrics(statistics)
    if (record := _json(folder / "trained" / "run.json")) and (steps := _steps(record)):
        values |= {name: value for name, value in _numbers(steps[-1]).items() if not name.startswith("ifpo/")}
    return (float(place), values) if values else None


def _steps(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Figures by step; of a cold start, whose `steps` is their number, the losses."""
    steps = record.get("steps")
    return steps if isinstance(steps, list) else record.get("losses") or []


def _sampled(groups: Path) -> dict[str, float]:
    from trainer.errors import GroupError
    from trainer.groups.statistics import group_statistics

    try:
        return statistics_metrics(group_statistics(groups).as_json())
    except GroupError:  # prepared by another version since
        return {}


def statistics_metrics(statistics: dict[str, Any]) -> dict[str, float]:
    """Statistics of groups under the names that a trainer logs."""
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
        consulting = kind["consult"]["hits"]
        for mode, count in (("consult", consulting), ("direct", kind["episodes"] - consulting)):
            if kind[f"reward_{mode}"] is not None:
                by_mode[mode].append((count, kind[f"reward_{mode}"]))
    for mode, parts in by_mode.items():
        if parts:
            total = sum(count for count, _ in parts)
            values[f"ifpo/reward/{mode}"] = sum(count * mean for count, mean in parts) / total
    return {name: float(value) for name, value in values.items() if value is not None}


def _numbers(entry: dict[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in entry.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise HistoryError(f"{path} is not JSON: {error}") from None
    return value if isinstance(value, dict) else None
