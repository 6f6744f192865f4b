"""Calibrates the threshold below which no rule applies, from labelled prompts.

Prompts of some kinds must match a rule; prompts of other kinds must not. At the threshold, at most the share
`misses` of the former matches no rule. If there are enough prompts, this holds with 95 % confidence, because
real questions will differ from these prompts. Within this limit, as many of the latter as possible match no
rule. The default threshold remains in use unless another one is clearly better.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from rule_server.errors import RuleServiceError
from rule_server.retrieval import Calibration, scoring_version, split_into_windows
from rule_server.retrieval.threshold import DEFAULT_THRESHOLD
from rule_server.schemas import MAX_SITUATION_CHARS

if TYPE_CHECKING:
    from rule_server.retrieval import Encoder
    from rule_server.retrieval.index import RuleIndex

MUST_FIND_KINDS = ("harmful",)
MUST_FIND_NOTHING_KINDS = ("benign_plain", "math")
MAX_LINE_CHARS = 64 * 1024
MAX_PROMPTS = 200_000
BATCH_SIZE = 32
GREEDY_COUNT, GREEDY_SHARE = 3, 0.02
"""A rule is reported if it comes first for at least this number and share of the prompts that must match no
rule."""

Z_95 = NormalDist().inv_cdf(0.975)


class CalibrationError(RuleServiceError):
    """The threshold cannot be calibrated from the labelled prompts."""


@dataclass(frozen=True)
class LabelledPrompt:
    """A prompt with its kind and source."""

    text: str
    kind: str
    source: str


@dataclass(frozen=True)
class ScoredPrompt(LabelledPrompt):
    """A prompt with its best score over all rules."""

    score: float
    rule: str = ""
    """Id of the rule with this score."""


def read_labelled_prompts(files: Sequence[Path]) -> list[LabelledPrompt]:
    """Reads JSON Lines files with `prompt` or `situation`, `kind`, and optionally `source`.

    Raises:
        CalibrationError: a line is invalid; the message names the file and the line.
    """
    rows = []
    for file in files:
        try:
            with file.open(encoding="utf-8") as lines:
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        rows.append(_parse_row(line, file, number))
                    if len(rows) > MAX_PROMPTS:
                        raise CalibrationError(f"there are over {MAX_PROMPTS} prompts: name fewer files")
        except OSError as error:
            raise CalibrationError(f"{file} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise CalibrationError(f"{file} is not UTF-8 text: save it as UTF-8") from None
    return rows


def _parse_row(line: str, file: Path, number: int) -> LabelledPrompt:
    try:
        if len(line) > MAX_LINE_CHARS:
            raise ValueError
        row = json.loads(line)
        text, kind = row.get("prompt", row.get("situation")), row["kind"]
        source = row.get("source") or ""
        if not (isinstance(text, str) and isinstance(kind, str) and isinstance(source, str)):
            raise ValueError
    except (ValueError, KeyError, AttributeError, RecursionError):
        raise CalibrationError(
            f"{file.name} line {number} is not a JSON object with a text `prompt` (or `situation`) and a "
            "`kind`"
        ) from None
    return LabelledPrompt(text[:MAX_SITUATION_CHARS], kind, source)


def score_prompts(
    index: RuleIndex, encoder: Encoder, rows: Sequence[LabelledPrompt], advance: Callable[[int], object]
) -> list[ScoredPrompt]:
    """Scores every prompt. `advance` receives the number of prompts after each batch."""
    scored = []
    for start in range(0, len(rows), BATCH_SIZE):
        batch = rows[start : start + BATCH_SIZE]
        windows = [split_into_windows(row.text) for row in batch]
        vectors = encoder.encode([window for own in windows for window in own])
        at = 0
        for row, own in zip(batch, windows, strict=True):
            scores = index.scores(vectors[at : at + len(own)])
            first = index.ranked(scores, 1)
            rule = first[0].rule.id if first else ""
            scored.append(ScoredPrompt(row.text, row.kind, row.source, float(scores.max()), rule))
            at += len(own)
        advance(len(batch))
    return scored


def wilson(hits: int, count: int) -> tuple[float, float, float]:
    """Returns a share and its 95 % Wilson score interval (share, low, high); NaN if `count` is 0."""
    if not count:
        return math.nan, math.nan, math.nan
    share = hits / count
    scale = 1 + Z_95**2 / count
    middle = (share + Z_95**2 / (2 * count)) / scale
    half = Z_95 / scale * math.sqrt(share * (1 - share) / count + Z_95**2 / (4 * count**2))
    return share, max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True)
class Choice:
    """A chosen threshold."""

    threshold: float
    enough_prompts: bool
    """Whether the share of misses is bounded with 95 % confidence."""
    is_default: bool
    """Whether it is the default, because no other threshold is clearly better."""


def choose_threshold(find: Iterable[float], nothing: Iterable[float], misses: float) -> Choice:
    """Chooses a threshold in the middle of a gap between scores.

    Args:
        find: scores of prompts that must find a rule.
        nothing: scores of prompts that must find nothing.
        misses: maximum share of the former below the threshold.

    Raises:
        CalibrationError: more of the former than `misses` allows are in languages that no encoder knows.
    """
    ranked, others = sorted(find), list(nothing)
    count = len(ranked)
    missed = max((n for n in range(count) if wilson(n, count)[2] <= misses), default=-1)
    enough = missed >= 0
    highest = ranked[missed if enough else min(int(misses * count), count - 1)]
    if highest == -math.inf:
        raise CalibrationError(
            f"over {misses:.0%} of the prompts that must find a rule are in languages that no encoder knows: "
            "leave them out"
        )
    below = [score for score in others if score < highest]
    threshold = _middle_of_gap(max(below, default=-math.inf), ranked)
    keeps = sum(score < DEFAULT_THRESHOLD for score in others) / max(len(others), 1)
    as_good = keeps >= wilson(len(below), len(others))[1] if others else False
    if as_good and _count_below(ranked, DEFAULT_THRESHOLD) <= _count_below(ranked, threshold):
        return Choice(DEFAULT_THRESHOLD, enough, True)
    return Choice(threshold, enough, False)


def _middle_of_gap(low: float, ranked: Sequence[float]) -> float:
    """Returns a threshold between `low` and the next score above it, with four decimals if possible."""
    high = next(score for score in ranked if score > low)
    middle = round((low + high) / 2, 4) if low > -math.inf else math.floor(high * 1e4) / 1e4
    return middle if low < middle <= high else high


def _count_below(scores: Iterable[float], threshold: float) -> int:
    return sum(score < threshold for score in scores)


@dataclass(frozen=True)
class CalibrationReport:
    """A calibration with its measurements."""

    calibration: Calibration
    enough_prompts: bool
    """Whether the share of misses is bounded with 95 % confidence."""
    kinds: list[dict[str, Any]]
    """Share that matches no rule, with its interval, by kind and source."""
    cross_validation: list[dict[str, Any]]
    """For each source, the threshold from the other sources and its effect on this one."""
    curve: list[dict[str, float]]
    """Shares by kind over thresholds."""
    greedy_rules: list[dict[str, Any]]
    """Rules that come first for too many prompts that must match no rule, with their number and share."""
    never_first: list[str]
    """Rules that come first for no prompt, at any threshold."""

    def as_dict(self) -> dict[str, Any]:
        return {
            **asdict(self.calibration),
            "enough_prompts": self.enough_prompts,
            "kinds": self.kinds,
            "cross_validation": self.cross_validation,
            "curve": self.curve,
            "greedy_rules": self.greedy_rules,
            "never_first": self.never_first,
        }


def calibrate(
    scored: Sequence[ScoredPrompt],
    index: RuleIndex,
    *,
    misses: float = 0.05,
    find: Collection[str] = MUST_FIND_KINDS,
    nothing: Collection[str] = MUST_FIND_NOTHING_KINDS,
) -> CalibrationReport:
    """Chooses a threshold for an index and measures it.

    Args:
        misses: maximum share of must-match prompts that may match no rule.
        find: kinds that must find a rule.
        nothing: kinds that must find no rule.

    Raises:
        CalibrationError: no prompt has a kind of `find`, or none has a kind of `nothing`; or too many that
            must find a rule are in languages that no encoder knows.
    """
    for kinds in (find, nothing):
        if not any(row.kind in kinds for row in scored):
            seen = ", ".join(sorted({row.kind for row in scored})) or "none"
            raise CalibrationError(
                f"no prompt has the kind {' or '.join(kinds)} (kinds seen: {seen}): add some"
            )
    choice = choose_threshold(*_scores_of(scored, find, nothing), misses)
    threshold = choice.threshold
    calibration = Calibration(
        threshold=threshold,
        rule=_criterion(choice, misses, find, nothing),
        rulebook=index.rulebook.digest,
        scoring=scoring_version(),
        prompts=len(scored),
        nothing={
            kind: round(_share([row for row in scored if row.kind == kind], threshold), 4)
            for kind in sorted({row.kind for row in scored})
        },
    )
    return CalibrationReport(
        calibration,
        choice.enough_prompts,
        _by_kind(scored, threshold),
        _cross_validation(scored, misses, find, nothing),
        _curve(scored),
        _greedy_rules(scored, threshold, nothing),
        sorted(index.rulebook.served.keys() - {row.rule for row in scored}),
    )


def _scores_of(
    scored: Sequence[ScoredPrompt], find: Collection[str], nothing: Collection[str]
) -> tuple[list[float], list[float]]:
    """Returns the scores of the prompts that must find a rule, and of those that must find nothing."""
    found = [row.score for row in scored if row.kind in find]
    return found, [row.score for row in scored if row.kind in nothing]


def _criterion(choice: Choice, misses: float, find: Collection[str], nothing: Collection[str]) -> str:
    confidence = (
        ", with 95 % confidence" if choice.enough_prompts else " of those measured, too few to be sure"
    )
    limit = f"at most {misses:.0%} of {' and '.join(find)} match no rule{confidence}"
    if choice.is_default:
        return f"the default, because none at which {limit}, is clearly better"
    return f"{limit}; as many {' and '.join(nothing)} as possible match none; in the middle between scores"


def _greedy_rules(
    scored: Sequence[ScoredPrompt], threshold: float, nothing: Collection[str]
) -> list[dict[str, Any]]:
    own = [row for row in scored if row.kind in nothing]
    counts = Counter(row.rule for row in own if row.score >= threshold)
    return [
        {"rule": rule, "prompts": count, "share": round(count / len(own), 4)}
        for rule, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        if count >= GREEDY_COUNT and count >= GREEDY_SHARE * len(own)
    ]


def _share(rows: Sequence[ScoredPrompt], threshold: float) -> float:
    return sum(row.score < threshold for row in rows) / len(rows) if rows else math.nan


def _by_kind(scored: Sequence[ScoredPrompt], threshold: float) -> list[dict[str, Any]]:
    table = []
    for kind in sorted({row.kind for row in scored}):
        own = [row for row in scored if row.kind == kind]
        sources = sorted({row.source for row in own})
        for source in ["", *(sources if len(sources) > 1 else [])]:
            rows = [row for row in own if not source or row.source == source]
            share, low, high = wilson(sum(row.score < threshold for row in rows), len(rows))
            shares = {"nothing": round(share, 4), "low": round(low, 4), "high": round(high, 4)}
            table.append({"kind": kind, "source": source or "all", "prompts": len(rows), **shares})
    return table


def _cross_validation(
    scored: Sequence[ScoredPrompt], misses: float, find: Collection[str], nothing: Collection[str]
) -> list[dict[str, Any]]:
    table = []
    for source in sorted({row.source for row in scored}):
        others = [row for row in scored if row.source != source]
        if not any(row.kind in find for row in others):
            continue
        threshold = choose_threshold(*_scores_of(others, find, nothing), misses).threshold
        line: dict[str, Any] = {"source": source, "threshold": threshold}
        for name, kinds in (("find", find), ("nothing", nothing)):
            own = [row for row in scored if row.source == source and row.kind in kinds]
            line[f"must_{name}"] = len(own)
            line[f"must_{name}_found_nothing"] = round(_share(own, threshold), 4) if own else None
        table.append(line)
    return table if len(table) > 1 else []


def _curve(scored: Sequence[ScoredPrompt], steps: int = 60) -> list[dict[str, float]]:
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


def plot_curve(report: CalibrationReport, file: Path) -> None:
    """Plots the share of every kind that matches no rule against the threshold.

    Raises:
        CalibrationError: matplotlib is not installed, or the file cannot be written.
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
