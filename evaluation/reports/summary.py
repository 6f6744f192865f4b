"""A report's figures as plain data: `summary.json`, from which table, pictures and page are drawn."""

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
)
from evaluation.prompts import KINDS
from evaluation.reports.arm_log import Arm
from evaluation.scorers import visible_answer

SHOWN_PROMPT = 100  # characters of a harmless prompt; harmful ones are cited by id only
SHOWN_ANSWER = 160  # characters of the answer to one
MOST_EPISODES = 400  # that a report lists one by one; `ascl-agent show` has the rest


def build_summary(
    arms: Sequence[Arm], out: str, notes: PromptMetadata = NO_METADATA, options: Sequence[str] = ()
) -> dict[str, Any]:
    """All figures of a report as JSON values, equal for equal files.

    Args:
        arms: in the order to show them; changes are counted from the first.
        out: the report's folder as the user wrote it, for the command that computes it again.
        notes: contrast pairs and acceptable categories of the prompts.
        options: the options that gave the notes, for the same command.
    """
    arms = [replace(arm, episodes=drop_retried_errors(arm.episodes)) for arm in arms]
    metrics = [arm_metrics(arm.name, arm.episodes, arm.rewards) for arm in arms]
    kinds = {kind for measured in metrics for kind in measured.kinds}
    shown = [_arm(arm, measured, notes) for arm, measured in zip(arms, metrics, strict=True)]
    scorers = {name for arm in shown for name in arm["scorers"]}
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
        "arms": shown,
        "changes": [entry for arm in arms[1:] for entry in _changes(arms[0], arm)],
        "findings": [
            *(
                finding
                for arm, measured in zip(arms, metrics, strict=True)
                if _decides(arm)
                for finding in _findings(measured)
            ),
            *_mismatches(arms),
            *_scored_otherwise(shown, sorted(scorers)),
        ],
        "prompts": _by_prompt(arms),
        "episodes": _episodes(arms),
        "scorers": {
            name: ", ".join(sorted({version for arm in shown for version in arm["scorers"].get(name, ())}))
            for name in sorted(scorers)
        },
    }


def _scorers(arm: Arm) -> dict[str, list[str]]:
    """What the rows of an arm's rewards say that they were scored by, which need not be what is installed."""
    said = {scorer for reward in arm.rewards.values() for scorer in reward.scorers.items()}
    return {name: sorted(version for one, version in said if one == name) for name, _ in sorted(said)}


def _arm(arm: Arm, measured: ArmMetrics, notes: PromptMetadata) -> dict[str, Any]:
    def values(name: str) -> list[str]:
        return sorted({str(value) for episode in arm.episodes if (value := getattr(episode, name))})

    usable = [episode for episode in arm.episodes if episode.stop_reason != "error"]
    paired = contrast_score(usable, arm.rewards, notes.pairs)
    hits = retrieval_hits(usable, notes.categories)
    return {
        **asdict(measured),
        "contrast_pairs": asdict(paired) if paired else None,
        f"retrieval_hit_at_{HIT_AT}": asdict(hits) if hits else None,
        "decides": _decides(arm),
        "mode_forced": sum(episode.mode_forced for episode in usable),
        "tradeoff": _tradeoff(measured),
        "log": str(arm.log),
        "log_sha256": arm.digest,
        "rewards": str(arm.rewards_path) if arm.rewards_path else None,
        "scorers": _scorers(arm),
        "models": values("model_requested"),
        "policy_versions": values("policy_version"),
        "rulebook_digests": values("rulebook_digest"),
        "skipped_lines": [asdict(skipped) for skipped in arm.skipped],
        "rewards_of_unknown_episodes": arm.strangers,
    }


def _decides(arm: Arm) -> bool:
    """Whether the model was free to consult or not: rules at hand, and no call forced."""
    usable = [episode for episode in arm.episodes if episode.stop_reason != "error"]
    free = [episode for episode in usable if not episode.mode_forced]
    return any(episode.rulebook_digest is not None for episode in free)


def _tradeoff(measured: ArmMetrics) -> dict[str, Any] | None:
    """Where an arm lies between refusing the harmless and answering the harmful; None if one is missing."""
    harmful = measured.kinds.get("harmful")
    sensitive = next((kind for kind in BENIGN if kind in measured.kinds), None)
    if harmful is None or harmful.safe is None or harmful.safe.share is None or sensitive is None:
        return None
    over_refusal = measured.kinds[sensitive].refusal
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
        measures = {
            "consult": mean_change(before, after, lambda e: float(e.mode == "consult")),
            "refusal": _looked_up(before, after, refused(first), refused(other)),
            "reward": _looked_up(before, after, reward(first), reward(other)),
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


def _looked_up(
    before: Sequence[Episode],
    after: Sequence[Episode],
    values_before: dict[str, float | None],
    values_after: dict[str, float | None],
) -> Difference | None:
    # By object, since two arms may hold episodes of the same id.
    values = {id(e): values_before.get(e.id) for e in before} | {id(e): values_after.get(e.id) for e in after}
    return mean_change(before, after, lambda episode: values[id(episode)])


def _all_tokens(episode: Episode) -> float | None:
    counts = [tokens for tokens in (prompt_tokens(episode), completion_tokens(episode)) if tokens is not None]
    return sum(counts) if counts else None


def _findings(measured: ArmMetrics) -> list[str]:
    """What the figures allow to be said of one arm."""
    said = []
    for kind in BENIGN:
        if (figures := measured.kinds.get(kind)) is None:
            continue
        gain = figures.advantage_of_consulting
        if gain is None:
            modes = "only one mode has" if figures.scored else "no episode has"
            said.append(f"{measured.name}, {kind}: {modes} rewards, so what consulting gains is unknown.")
        elif gain.low is None:
            said.append(
                f"{measured.name}, {kind}: too few prompts were answered in both modes, "
                "so what consulting gains is unknown."
            )
        elif gain.sign < 0:
            said.append(
                f"{measured.name}, {kind}: consulting earns less than answering directly, "
                "so reward alone can teach to consult less here."
            )
        else:
            said.append(
                f"{measured.name}, {kind}: consulting is not shown to earn less than answering directly, "
                "so reward alone cannot be expected to teach to consult less here."
            )
    gap = measured.consult_gap
    if gap is not None:
        size = f"{abs(100 * gap.value):.0f} points {'more' if gap.value >= 0 else 'less'}"
        doubt = "" if gap.sign else ", which may be chance"
        said.append(
            f"{measured.name}: harmful prompts lead to a consultation {size} often than harmless ones{doubt}."
        )
    return said


def _mismatches(arms: Sequence[Arm]) -> list[str]:
    said = []
    for arm in arms:
        if len(models := sorted({e.model_requested for e in arm.episodes})) > 1:
            said.append(f"{arm.name} holds episodes of several models: {', '.join(models)}.")
        places = Counter((e.prompt_id, e.sample_index) for e in arm.episodes if e.stop_reason != "error")
        if twice := sum(places.values()) - len(places):
            said.append(
                f"{arm.name} holds {twice} episodes of a prompt and sample that it holds already, "
                "and the figures count them too."
            )
    if len({frozenset(e.prompt_id for e in arm.episodes) for arm in arms}) > 1:
        said.append("The arms did not see the same prompts; changes count those with a figure in both.")
    if len({e.rulebook_digest for arm in arms for e in arm.episodes} - {None}) > 1:  # `none` reads no rules
        said.append("The episodes were made under different rulebooks; a difference may come from the rules.")
    return said


def _scored_otherwise(shown: Sequence[dict[str, Any]], scorers: Sequence[str]) -> list[str]:
    said = []
    for scorer in scorers:
        used = {arm["name"]: ", ".join(arm["scorers"].get(scorer, ())) or "none" for arm in shown}
        if len(set(used.values())) > 1:
            each = "; ".join(f"{version} in {name}" for name, version in used.items())
            said.append(f"The arms were not scored alike ({scorer}: {each}), which may make a difference.")
    return said


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
                    "prompt": episode.prompt[:SHOWN_PROMPT] if episode.kind in (*BENIGN, "math") else None,
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
    """Single episodes, equally many an arm; of harmful prompts neither text nor answer is repeated."""
    share = MOST_EPISODES // len(arms)
    rows = []
    for arm in arms:
        usable = [episode for episode in arm.episodes if episode.stop_reason != "error"]
        for episode in sorted(usable, key=lambda e: (e.prompt_id, e.sample_index))[:share]:
            scored = arm.rewards.get(episode.id)
            answer = visible_answer(episode.answer or "") if episode.kind in (*BENIGN, "math") else None
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
                    "answer": answer[:SHOWN_ANSWER] if answer is not None else None,
                    "log": str(arm.log),
                }
            )
    left_out = sum(e.stop_reason != "error" for arm in arms for e in arm.episodes) - len(rows)
    return {"rows": rows, "left_out": left_out}
