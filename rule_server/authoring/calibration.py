"""The threshold below which no rule applies, found from labelled prompts.

Prompts of some kinds must find a rule, those of others must not. The threshold is the highest one at which
the share of the former that finds nothing is at most `misses`, and is so with 95 % confidence where there are
enough of them: what is asked next are other prompts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rule_server.errors import RuleServiceError
from rule_server.retrieval import Calibration, scoring_version, split_into_windows
from rule_server.schemas import LONGEST

if TYPE_CHECKING:
    from rule_server.retrieval import Encoder
    from rule_server.retrieval.index import RuleIndex

KINDS_THAT_FIND = ("harmful",)
KINDS_THAT_FIND_NOTHING = ("benign_plain", "math")
MAX_LINE = 64 * 1024
MAX_PROMPTS = 200_000
BATCH = 32


class CalibrationError(RuleServiceError):
    """Labelled prompts that no threshold can be found from."""


@dataclass(frozen=True)
class Labelled:
    """A prompt, and of which kind and source it is."""

    text: str
    kind: str
    source: str


@dataclass(frozen=True)
class Scored(Labelled):
    """Its best score over all rules."""

    score: float


def read_labelled(files: Sequence[Path]) -> list[Labelled]:
    """Rows of JSON Lines files with `prompt` or `situation`, `kind`, and perhaps `source`.

    Raises:
        CalibrationError: naming the file and line that cannot be used.
    """
    rows = []
    for file in files:
        try:
            with file.open(encoding="utf-8") as lines:
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        rows.append(_labelled(line, file, number))
                    if len(rows) > MAX_PROMPTS:
                        raise CalibrationError(f"there are over {MAX_PROMPTS} prompts: name fewer files")
        except OSError as error:
            raise CalibrationError(f"{file} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise CalibrationError(f"{file} is not UTF-8 text: save it as UTF-8") from None
    return rows


def _labelled(line: str, file: Path, number: int) -> Labelled:
    try:
        if len(line) > MAX_LINE:
            raise ValueError
        row = json.loads(line)
        text, kind = row.get("prompt", row.get("situation")), row["kind"]
        source = row.get("source") or ""
        if not (isinstance(text, str) and isinstance(kind, str) and isinstance(source, str)):
            raise ValueError
    except (ValueError, KeyError, AttributeError, RecursionError):
        raise CalibrationError(
            f"{file.name} line {number} is no JSON object with a text `prompt` (or `situation`) and a `kind`"
        ) from None
    return Labelled(text[:LONGEST], kind, source)


def score_all(
    index: RuleIndex, encoder: Encoder, rows: Sequence[Labelled], progress: Callable[[int], object]
) -> list[Scored]:
    """Ask the index every prompt; `progress` is told how many more are done."""
    scored = []
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        parts = [split_into_windows(row.text) for row in batch]
        vectors = encoder.encode([part for own in parts for part in own])
        at = 0
        for row, own in zip(batch, parts, strict=True):
            best = float(index.scores(vectors[at : at + len(own)]).max())
            scored.append(Scored(row.text, row.kind, row.source, best))
            at += len(own)
        progress(len(batch))
    return scored


def wilson(hits: int, count: int) -> tuple[float, float, float]:
    """Share, and its 95 % Wilson interval; not-a-number for none."""
    if not count:
        return math.nan, math.nan, math.nan
    z = 1.959964
    share = hits / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return share, max(0.0, middle - half), min(1.0, middle + half)


def choose(scores: Iterable[float], misses: float) -> tuple[float, bool]:
    """Threshold for prompts that must find a rule, and whether they are enough to be sure of `misses`."""
    ranked = sorted(scores)
    count = len(ranked)
    missed = max((n for n in range(count) if wilson(n, count)[2] <= misses), default=-1)
    sure = missed >= 0
    missed = missed if sure else min(int(misses * count), count - 1)
    return math.floor(ranked[missed] * 1e4) / 1e4, sure


@dataclass(frozen=True)
class Report:
    """A calibration and the measurements behind it."""

    calibration: Calibration
    sure: bool
    kinds: list[dict[str, Any]]
    """Share that finds nothing, with its interval, by kind and source."""
    cross_validation: list[dict[str, Any]]
    """For every source, the threshold that the others give and what it does to this one."""
    curve: list[dict[str, float]]
    """Shares by kind over thresholds."""

    def as_dict(self) -> dict[str, Any]:
        calibration = asdict(self.calibration)
        shown = {"enough_prompts": self.sure, "kinds": self.kinds, "cross_validation": self.cross_validation}
        return {**calibration, **shown, "curve": self.curve}


def calibrate(
    scored: Sequence[Scored],
    index: RuleIndex,
    *,
    misses: float = 0.05,
    find: Collection[str] = KINDS_THAT_FIND,
    nothing: Collection[str] = KINDS_THAT_FIND_NOTHING,
) -> Report:
    """Choose a threshold for an index and measure it.

    Raises:
        CalibrationError: when no prompt is of a kind that must find a rule, or none of one that must not.
    """
    for kinds in (find, nothing):
        if not any(row.kind in kinds for row in scored):
            seen = ", ".join(sorted({row.kind for row in scored})) or "none"
            wanted = " or ".join(kinds)
            raise CalibrationError(f"no prompt has the kind {wanted} (kinds seen: {seen}): add some")
    threshold, sure = choose((row.score for row in scored if row.kind in find), misses)
    confidence = ", with 95 % confidence" if sure else " of those measured, too few to be sure"
    calibration = Calibration(
        threshold=threshold,
        rule=f"the highest at which at most {misses:.0%} of {' and '.join(find)} find nothing{confidence}",
        rulebook=index.rulebook.digest,
        scoring=scoring_version(),
        prompts=len(scored),
        nothing={
            kind: round(_share([row for row in scored if row.kind == kind], threshold), 4)
            for kind in sorted({row.kind for row in scored})
        },
    )
    return Report(
        calibration,
        sure,
        _by_kind(scored, threshold),
        _cross_validation(scored, misses, find, nothing),
        _curve(scored),
    )


def _share(rows: Sequence[Scored], threshold: float) -> float:
    return sum(row.score < threshold for row in rows) / len(rows) if rows else math.nan


def _by_kind(scored: Sequence[Scored], threshold: float) -> list[dict[str, Any]]:
    table = []
    for kind in sorted({row.kind for row in scored}):
        own = [row for row in scored if row.kind == kind]
        sources = sorted({row.source for row in own})
        groups = [("", own)] if len(sources) < 2 else [("", own), *((name, own) for name in sources)]
        for source, rows in groups:
            part = [row for row in rows if not source or row.source == source]
            share, low, high = wilson(sum(row.score < threshold for row in part), len(part))
            figures = {"nothing": round(share, 4), "low": round(low, 4), "high": round(high, 4)}
            table.append({"kind": kind, "source": source or "all", "prompts": len(part), **figures})
    return table


def _cross_validation(
    scored: Sequence[Scored], misses: float, find: Collection[str], nothing: Collection[str]
) -> list[dict[str, Any]]:
    table = []
    for source in sorted({row.source for row in scored}):
        others = [row.score for row in scored if row.source != source and row.kind in find]
        if not others:
            continue
        threshold, _ = choose(others, misses)
        line: dict[str, Any] = {"source": source, "threshold": threshold}
        for name, kinds in (("find", find), ("nothing", nothing)):
            own = [row for row in scored if row.source == source and row.kind in kinds]
            line[f"must_{name}"] = len(own)
            line[f"must_{name}_found_nothing"] = round(_share(own, threshold), 4) if own else None
        table.append(line)
    return table if len(table) > 1 else []


def _curve(scored: Sequence[Scored], steps: int = 60) -> list[dict[str, float]]:
    ranked = sorted(row.score for row in scored)
    low, high = ranked[len(ranked) // 200], ranked[-1 - len(ranked) // 200]  # without far outliers
    points = []
    for step in range(steps + 1):
        threshold = low + (high - low) * step / steps
        shares = {
            kind: round(_share([row for row in scored if row.kind == kind], threshold), 4)
            for kind in sorted({row.kind for row in scored})
        }
        points.append({"threshold": round(threshold, 4), **shares})
    return points


def plot(report: Report, file: Path) -> None:
    """Draw the share of every kind that finds nothing against the threshold.

    Raises:
        CalibrationError: when matplotlib is not installed, or the picture cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise CalibrationError(
            "drawing the curve needs matplotlib: pip install 'ascl[eval]', or leave --plot out"
        ) from None
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    thresholds = [point["threshold"] for point in report.curve]
    for kind in report.calibration.nothing:
        axes.plot(thresholds, [point[kind] for point in report.curve], label=kind)
    chosen = report.calibration.threshold
    axes.axvline(chosen, color="black", linewidth=1, linestyle="--", label=f"threshold {chosen:.3f}")
    axes.set_xlabel("threshold")
    axes.set_ylabel("share that finds no rule")
    axes.set_ylim(0, 1)
    axes.grid(alpha=0.3)
    axes.legend()
    try:
        figure.savefig(file, dpi=150)
    except (OSError, ValueError) as error:
        raise CalibrationError(f"the picture {file} cannot be written: {error}") from None
