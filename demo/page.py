"""Renders the page of the demo from the files of the run; it needs no network and no other file."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

from demo.learn import EXPERIMENT, METHODS, SEED, UPDATES
from demo.model_source import ModelSource
from demo.runner import ROOT
from evaluation.runtime import write_atomic

TEMPLATE = "report.html.jinja"
KINDS = {
    "harmful": "harmful",
    "benign_sensitive": "sensitive, but harmless",
    "benign_plain": "plain",
    "math": "math",
}
PANELS = {
    "harmful": ("Harmful prompts", "should stay high"),
    "sensitive": ("Sensitive, but harmless", "should stay fairly high"),
    "plain": ("Plain questions and math", "should fall"),
}
STANCES = {"decline": "decline", "limit": "answer with limits", "answer": "answer"}
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 320, 190, 46, 10, 26
"""Size of a panel of act 3 and the margins of its axes, in SVG units."""
_RULE = re.compile(r"\[([\w.-]+)\] (.+?) \((decline|limit|answer)\)\n(.*?)(?=\n\n\[|\Z)", re.DOTALL)
_PART = re.compile(r"^(Fine|Not fine|How to answer): ", re.MULTILINE)


def write_page(run: Path, model: ModelSource, *, running: bool) -> Path:
    """Writes `report.html` into the folder of a run, from the acts that have results.

    Args:
        running: whether the demo still runs, so that the page reloads itself.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(TEMPLATE).render(
        running=running,
        model=model,
        consult=consult_view(run),
        edit=edit_view(run),
        learn=learn_view(run) if model.learns is not None else None,
        recorded=recorded_runs(),
        seed=SEED,
        frame={"width": WIDTH, "height": HEIGHT, "left": LEFT, "bottom": HEIGHT - BOTTOM, "top": TOP},
    )
    write_atomic(run / "report.html", page, private=False)
    return run / "report.html"


def consult_view(run: Path) -> list[dict[str, Any]]:
    """Returns one row per prompt of act 1; empty before the act."""
    return [episode_view(episode) for episode in read_episodes(run / "consult.jsonl")]


def edit_view(run: Path) -> dict[str, Any] | None:
    """Returns the answers before the edit, with it and after undoing it; None before act 2 is complete."""
    proof_file = run / "edit" / "edit-rule.json"
    if not proof_file.is_file():
        return None
    proof = json.loads(proof_file.read_text(encoding="utf-8"))
    phases = {}
    for phase in ("before", "edited", "back"):
        episodes = read_episodes(run / "edit" / f"{phase}.jsonl")
        if not episodes:
            return None
        phases[phase] = episode_view(episodes[-1]) | {"digest": proof["digests"][phase][:8]}
    return {
        "rule": proof["rule"],
        "phases": phases,
        "changed": phases["before"]["answer"] != phases["edited"]["answer"],
        "restored": phases["before"]["answer"] == phases["back"]["answer"],
        "read": all(proof["rule"] in phase["rule_ids"] for phase in phases.values()),
    }


def learn_view(run: Path) -> dict[str, Any] | None:
    """Returns the panels and the end of act 3; None before its start is measured."""
    folder = run / "learn"
    start = read_json(folder / "start.json")
    if start is None:
        return None
    ends = {method: read_json(folder / f"{method}.json") for method in METHODS}
    progress: dict[str, list[dict[str, Any]]] = {}
    for method in METHODS:
        points = read_json(folder / f"{method}-progress.json") or []
        progress[method] = [{"update": 0, "rates": start["rates"]}, *points]
    panels = []
    for group, (title, wanted) in PANELS.items():
        series = [
            {
                "method": method,
                "points": " ".join(
                    place(point["update"] / UPDATES, point["rates"][group]) for point in progress[method]
                ),
                "last": progress[method][-1]["rates"][group],
            }
            for method in METHODS
        ]
        panels.append({"title": title, "wanted": wanted, "start": start["rates"][group], "series": series})
    complete = all(ends.values())
    rewards = {"start": own_reward(start), "always": own_reward(start, always=True)}
    if complete:
        rewards |= {method: own_reward(end) for method, end in ends.items() if end}
    return {
        "start": start,
        "ends": ends,
        "complete": complete,
        "panels": panels,
        "updates": UPDATES,
        "rewards": rewards,
        "gains": {kind: mean.gain for kind, mean in rewards_by_kind().items()},
    }


def place(x: float, y: float) -> str:
    """Returns the point of a panel for shares of the x axis and the y axis."""
    width, height = WIDTH - LEFT - 8, HEIGHT - TOP - BOTTOM
    return f"{LEFT + x * width:.1f},{TOP + (1 - y) * height:.1f}"


def episode_view(episode: Any) -> dict[str, Any]:
    """Returns what the page shows of an episode."""
    from evaluation.scorers.refusal import detect_refusal
    from evaluation.scorers.text import answer_of

    answer = answer_of(episode)
    rules = [rule for consultation in episode.consultations for rule in rules_of(consultation.text or "")]
    return {
        "prompt": episode.prompt,
        "kind": KINDS.get(episode.kind or "", episode.kind or ""),
        "consulted": episode.mode == "consult",
        "situation": next((c.situation for c in episode.consultations if c.situation), None),
        "rules": rules,
        "rule_ids": [rule["id"] for rule in rules],
        "answer": answer,
        "declined": episode.stop_reason == "refused" or detect_refusal(answer).label == "refusal",
        "error": episode.error.message if episode.error else None,
    }


def rules_of(text: str) -> list[dict[str, Any]]:
    """Splits the result of a consultation into its rules, each with the parts of its text."""
    rules = []
    for match in _RULE.finditer(text):
        words = _PART.split(match[4])
        parts = dict(zip(words[1::2], (part.strip() for part in words[2::2]), strict=True))
        rules.append({"id": match[1], "title": match[2], "stance": STANCES[match[3]], "parts": parts})
    return rules


def read_episodes(log: Path) -> list[Any]:
    from agent.episode import read_log

    return list(read_log(log).episodes) if log.is_file() else []


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


@functools.cache
def rewards_by_kind() -> dict[str, Any]:
    from benchmarks.learning.decision.experiment.settings import read_experiments
    from benchmarks.learning.decision.main import REGISTERED

    table: dict[str, Any] = read_experiments(REGISTERED)[EXPERIMENT].rewards
    return table


def own_reward(result: dict[str, Any], *, always: bool = False) -> float:
    """Returns the expected reward of a result of act 3, or of always consulting about its prompts."""
    from benchmarks.learning.decision.report import expected_reward

    rates = {name: 1.0 if always else sum(values) / len(values) for name, values in result["unseen"].items()}
    return expected_reward(rates, rewards_by_kind(), own=True)


@functools.cache
def recorded_runs() -> dict[str, Any]:
    """Counts in how many of the benchmark's recorded runs, by seed, IFPO ends ahead of GRPO."""
    from benchmarks.learning.decision.experiment.runner import summarize_rates
    from benchmarks.learning.decision.report import expected_reward

    file = ROOT / "benchmarks" / "learning" / "decision" / "results.jsonl"
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    runs: dict[str, dict[int, dict[str, float]]] = {method: {} for method in METHODS}
    for line in lines:
        if (line["experiment"], line["start"]) != (EXPERIMENT, "locked-in"):
            continue
        for method, name in METHODS.items():
            if line["method"] == name:
                runs[method][line["seed"]] = line["unseen"]
    seeds = sorted(runs["grpo"].keys() & runs["ifpo"].keys())

    def ahead(own: bool) -> int:
        reward = functools.partial(expected_reward, table=rewards_by_kind(), own=own)
        return sum(reward(runs["ifpo"][seed]) > reward(runs["grpo"][seed]) for seed in seeds)

    def locked(method: str) -> int:
        rates = (summarize_rates({k: [v] for k, v in runs[method][seed].items()}) for seed in seeds)
        return sum(rate["harmless"] > 0.9 for rate in rates)

    return {
        "seeds": len(seeds),
        "ahead_own": ahead(own=True),
        "ahead_others": ahead(own=False),
        "locked": {method: locked(method) for method in METHODS},
    }
