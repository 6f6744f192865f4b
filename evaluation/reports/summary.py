"""Computes the metrics of a report: the content of `summary.json`, which tables, charts and page show."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from agent.episode import Episode
from evaluation.metrics import (
    BENIGN,
    HIT_AT,
    NO_METADATA,
    ArmMetrics,
    Difference,
    PromptMetadata,
    arm_metrics,
    compare_outcomes,
    completion_tokens,
    contrast_score,
    drop_retried_errors,
    duration_seconds,
    mean_change,
    prompt_tokens,
    retrieval_hits,
    with_own_decision,
)
from evaluation.prompts import KINDS
from evaluation.reports.arm_log import Arm
from evaluation.scorers import models_that_open_in_reasoning
from evaluation.scorers.text import answer_of

MAX_PROMPT_CHARS = 100  # of a harmless prompt; a harmful prompt is cited by its id
MAX_ANSWER_CHARS = 160  # of the answer to a harmless prompt
MAX_EPISODES = 400  # listed one by one; `ascl-agent show` prints the others


def build_summary(
    arms: Sequence[Arm], out: str, metadata: PromptMetadata = NO_METADATA, options: Sequence[str] = ()
) -> dict[str, Any]:
    """Computes all metrics of a report as JSON values, identical for identical files.

    Args:
        arms: the arms in display order; the first is the baseline of changes.
        out: the report's folder as the user wrote it, for the command that reproduces the report.
        metadata: contrast pairs and accepted categories of the prompts.
        options: the options that gave the metadata, for the same command.
    """
    arms = [replace(arm, episodes=drop_retried_errors(arm.episodes)) for arm in arms]
    metrics = [arm_metrics(arm.name, arm.episodes, arm.rewards) for arm in arms]
    kinds = {kind for arm in metrics for kind in arm.kinds}
    entries = [_arm_entry(arm, values, metadata) for arm, values in zip(arms, metrics, strict=True)]
    scorers = {name for entry in entries for name in entry["scorers"]}
    return {
        "schema_version": 1,
        "command": shlex.join(
            [
                *("ascl-eval", "report"),
                *(part for arm in arms for part in ("--arm", arm.option())),
                *(*options, "--out", out),
            ]
        ),
        "kinds": [*(kind for kind in KINDS if kind in kinds), *sorted(kinds - set(KINDS))],
        "arms": entries,
        "changes": [change for arm in arms[1:] for change in _changes(arms[0], arm)],
        "findings": [
            *(
                finding
                for arm, values in zip(arms, metrics, strict=True)
                if _decides(arm)
                for finding in _findings(values)
            ),
            *_mismatches(arms),
            *_scorer_differences(entries, sorted(scorers)),
        ],
        "prompts": _by_prompt(arms),
        "episodes": _episodes(arms),
        "scorers": {
            name: ", ".join(
                sorted({version for entry in entries for version in entry["scorers"].get(name, ())})
            )
            for name in sorted(scorers)
        },
    }


def _scorers(arm: Arm) -> dict[str, list[str]]:
    """Returns the scorers that an arm's rewards name; the installed versions may differ."""
    scorers = {scorer for reward in arm.rewards.values() for scorer in reward.scorers.items()}
    return {
        name: sorted(version for scorer, version in scorers if scorer == name) for name, _ in sorted(scorers)
    }


def _arm_entry(arm: Arm, metrics: ArmMetrics, metadata: PromptMetadata) -> dict[str, Any]:
    def values(name: str) -> list[str]:
        return sorted({str(value) for episode in arm.episodes if (value := getattr(episode, name))})

    usable = [episode for episode in arm.episodes if episode.stop_reason != "error"]
    paired = contrast_score(usable, arm.rewards, metadata.pairs)
    hits = retrieval_hits(usable, metadata.categories)
    return {
        **asdict(metrics),
        "contrast_pairs": asdict(paired) if paired else None,
        f"retrieval_hit_at_{HIT_AT}": asdict(hits) if hits else None,
        "decides": _decides(arm),
        "mode_forced": sum(episode.mode_forced for episode in usable),
        "tradeoff": _tradeoff(metrics),
        "log": str(arm.log),
        "log_sha256": arm.digest,
        "rewards": str(arm.rewards_path) if arm.rewards_path else None,
        "scorers": _scorers(arm),
        "models": values("model_requested"),
        "policy_versions": values("policy_version"),
        "rulebook_digests": values("rulebook_digest"),
        "skipped_lines": [asdict(skipped) for skipped in arm.skipped],
        "rewards_of_unknown_episodes": arm.unmatched_rewards,
    }


def _decides(arm: Arm) -> bool:
    """Returns whether the model was free to consult: it had rules, and no call was forced."""
    usable = [episode for episode in arm.episodes if episode.stop_reason != "error"]
    free = [episode for episode in usable if not episode.mode_forced]
    return any(episode.rulebook_digest is not None for episode in free)


def _tradeoff(metrics: ArmMetrics) -> dict[str, Any] | None:
    """Returns the rates of refused harmless and unsafe harmful prompts; None if one is missing."""
    harmful = metrics.kinds.get("harmful")
    sensitive = next((kind for kind in BENIGN if kind in metrics.kinds), None)
    if harmful is None or harmful.safe is None or harmful.safe.share is None or sensitive is None:
        return None
    over_refusal = metrics.kinds[sensitive].refusal
    if over_refusal.share is None or harmful.safe.low is None or harmful.safe.high is None:
        return None
    unsafe = {"share": 1 - harmful.safe.share, "low": 1 - harmful.safe.high, "high": 1 - harmful.safe.low}
    return {
        "kind": sensitive,
        "over_refusal": {"share": over_refusal.share, "low": over_refusal.low, "high": over_refusal.high},
        "unsafe": {key: round(value, 6) for key, value in unsafe.items()},
    }


def _changes(first: Arm, other: Arm) -> list[dict[str, Any]]:
    def reward(arm: Arm) -> dict[str, float | None]:
        return {key: scored.total for key, scored in arm.rewards.items()}

    def refused(arm: Arm) -> dict[str, float | None]:
        return {key: float(scored.label == "refusal") for key, scored in arm.rewards.items()}

    entries = []
    for kind in KINDS:
        before = [e for e in first.episodes if e.kind == kind]
        after = [e for e in other.episodes if e.kind == kind]
        free_before, free_after = [
            [e for e in with_own_decision(arm.episodes) if e.kind == kind] for arm in (first, other)
        ]
        measures = {
            "consult": mean_change(free_before, free_after, lambda e: float(e.mode == "consult")),
            "refusal": _mean_change_by_id(before, after, refused(first), refused(other)),
            "reward": _mean_change_by_id(before, after, reward(first), reward(other)),
            "tokens": mean_change(before, after, _all_tokens),
            "seconds": mean_change(before, after, duration_seconds),
            "mcnemar": compare_outcomes(before, after, first.rewards, other.rewards),
        }
        if any(measures.values()):
            entries.append(
                {
                    "from": first.name,
                    "to": other.name,
                    "kind": kind,
                    **{name: asdict(value) if value else None for name, value in measures.items()},
                }
            )
    return entries


def _mean_change_by_id(
    before: Sequence[Episode],
    after: Sequence[Episode],
    values_before: dict[str, float | None],
    values_after: dict[str, float | None],
) -> Difference | None:
    # By object, because two arms may contain episodes with the same ID.
    values = {id(e): values_before.get(e.id) for e in before} | {id(e): values_after.get(e.id) for e in after}
    return mean_change(before, after, lambda episode: values[id(episode)])


def _all_tokens(episode: Episode) -> float | None:
    counts = [tokens for tokens in (prompt_tokens(episode), completion_tokens(episode)) if tokens is not None]
    return sum(counts) if counts else None


def _findings(metrics: ArmMetrics) -> list[str]:
    """Returns the conclusions that the metrics of one arm support, as sentences."""
    findings = []
    for kind in BENIGN:
        if (by_kind := metrics.kinds.get(kind)) is None:
            continue
        gain = by_kind.advantage_of_consulting
        if gain is None:
            modes = "only one mode has" if by_kind.scored else "no episode has"
            findings.append(
                f"{metrics.name}, {kind}: {modes} rewards, so the gain from consulting is unknown."
            )
        elif gain.low is None:
            findings.append(
                f"{metrics.name}, {kind}: too few prompts were answered in both modes, "
                "so the gain from consulting is unknown."
            )
        elif gain.sign < 0:
            findings.append(
                f"{metrics.name}, {kind}: consulting earns less than answering directly, "
                "so the reward alone can teach the model to consult less here."
            )
        else:
            findings.append(
                f"{metrics.name}, {kind}: no evidence that consulting earns less than answering directly, "
                "so the reward alone is unlikely to teach the model to consult less here."
            )
    gap = metrics.consult_gap
    if gap is not None:
        size = f"{abs(100 * gap.value):.0f} points {'more' if gap.value >= 0 else 'less'}"
        doubt = "" if gap.sign else ", which may be chance"
        findings.append(
            f"{metrics.name}: harmful prompts lead to a consultation {size} often than harmless ones{doubt}."
        )
    return findings


def _mismatches(arms: Sequence[Arm]) -> list[str]:
    """Returns warnings about arms that may not be comparable."""
    findings = []
    for arm in arms:
        if len(models := sorted({e.model_requested for e in arm.episodes})) > 1:
            findings.append(f"{arm.name} contains episodes from several models: {', '.join(models)}.")
        samples = Counter((e.prompt_id, e.sample_index) for e in arm.episodes if e.stop_reason != "error")
        causes = Counter(e.answered_without_rules for e in arm.episodes if e.answered_without_rules)
        if causes:
            each = ", ".join(f"{count} {cause}" for cause, count in sorted(causes.items()))
            findings.append(
                f"{arm.name} contains {sum(causes.values())} answers given although the rules could not be "
                f"consulted ({each})."
            )
        if repeated := sum(samples.values()) - len(samples):
            findings.append(
                f"{arm.name} contains {repeated} episodes whose prompt and sample another episode shares; "
                "the metrics count them too."
            )
    if len({frozenset(e.prompt_id for e in arm.episodes) for arm in arms}) > 1:
        findings.append("The arms ran on different prompts; changes cover the prompts that they share.")
    if (
        len({e.rulebook_digest for arm in arms for e in arm.episodes} - {None}) > 1
    ):  # the arm `none` has no rules
        findings.append("The episodes used different rulebooks, which may explain a difference.")
    return findings


def _scorer_differences(entries: Sequence[dict[str, Any]], scorers: Sequence[str]) -> list[str]:
    """Returns a warning for each scorer whose version differs between arms."""
    findings = []
    for scorer in scorers:
        versions = {arm["name"]: ", ".join(arm["scorers"].get(scorer, ())) or "none" for arm in entries}
        if len(set(versions.values())) > 1:
            each = "; ".join(f"{version} in {name}" for name, version in versions.items())
            findings.append(
                f"The arms used different scorers ({scorer}: {each}), which may explain a difference."
            )
    return findings


def _by_prompt(arms: Sequence[Arm]) -> list[dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for arm in arms:
        for episode in sorted(arm.episodes, key=lambda e: e.id):
            if episode.stop_reason == "error":
                continue
            row = rows.setdefault(
                episode.prompt_id,
                {
                    "id": episode.prompt_id,
                    "kind": episode.kind,
                    "prompt": episode.prompt[:MAX_PROMPT_CHARS]
                    if episode.kind in (*BENIGN, "math")
                    else None,
                    "arms": {},
                },
            )
            cell = row["arms"].setdefault(arm.name, {"n": 0, "consulted": 0, "refused": 0})
            cell["n"] += 1
            cell["consulted"] += episode.mode == "consult"
            scored = arm.rewards.get(episode.id)
            cell["refused"] += scored is not None and scored.label == "refusal"
    order = {kind: index for index, kind in enumerate(KINDS)}
    return sorted(rows.values(), key=lambda row: (order.get(row["kind"], len(order)), row["id"]))


def _episodes(arms: Sequence[Arm]) -> dict[str, Any]:
    """Lists single episodes, equally many per arm; omits prompts and answers of harmful prompts."""
    share = MAX_EPISODES // len(arms)
    rows = []
    for arm in arms:
        usable = [episode for episode in arm.episodes if episode.stop_reason != "error"]
        thinking_models = models_that_open_in_reasoning(usable)
        for episode in sorted(usable, key=lambda e: (e.prompt_id, e.sample_index))[:share]:
            scored = arm.rewards.get(episode.id)
            answer = answer_of(episode, thinking_models) if episode.kind in (*BENIGN, "math") else None
            rules = [rule.id for consultation in episode.consultations for rule in consultation.rules]
            rows.append(
                {
                    "arm": arm.name,
                    "id": episode.id,
                    "prompt_id": episode.prompt_id,
                    "sample": episode.sample_index,
                    "kind": episode.kind,
                    "mode": episode.mode + (", forced" if episode.mode_forced else ""),
                    "rules": list(dict.fromkeys(rules)),
                    "label": scored.label if scored else None,
                    "outcome": scored.scores.outcome if scored else None,
                    "why_not": scored.excluded if scored else None,
                    "answer": answer[:MAX_ANSWER_CHARS] if answer is not None else None,
                    "log": str(arm.log),
                }
            )
    left_out = sum(e.stop_reason != "error" for arm in arms for e in arm.episodes) - len(rows)
    return {"rows": rows, "left_out": left_out}
