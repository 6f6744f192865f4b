"""Trains only the decision to consult: GRPO, IFPO and their rivals on a real model, seed by seed.

    python -m benchmarks.learning.decision.main hints --data DATA
    python -m benchmarks.learning.decision.main run --data DATA [--methods a,b] [--seeds 0-9]
    python -m benchmarks.learning.decision.main report [--collect runs/benchmarks/decision/results] [--json]

Rollouts of SmolLM2-135M end when the mode is decided. Outcomes are simulated by a reward table with common
random numbers. The result is the exact probability of consulting on prompts from other sources: DATA contains
one JSON Lines file per source, with `id`, `prompt` and `kind`. `experiment/registered.yaml` defines the
experiments and was written before the runs. `hints` makes the hints of the experiments that have them, with
parts of the rule search that were not trained on a prompt's source. Finished runs are skipped, so you can
interrupt and restart the script, or start a second process with other seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from evaluation.prompts import Prompt
from rule_server.errors import RuleServiceError
from trainer.errors import LocalModelError

REGISTERED = Path(__file__).parent / "experiment" / "registered.yaml"
RESULTS = Path(__file__).with_name("results.jsonl")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    hints = commands.add_parser("hints", help="make the hints of the experiments that have them")
    hints.add_argument(
        "--data", type=Path, required=True, help="folder of labelled prompts from other sources"
    )
    hints.add_argument("--settings", type=Path, default=REGISTERED, help="file of experiments")
    hints.add_argument("--cache", type=Path, default=Path("runs/benchmarks/decision"))
    hints.add_argument("--base", type=Path, default=Path(".cache/models/smollm2-135m"))
    hints.add_argument(
        "--artefact", type=Path, default=Path("runs/benchmarks/artefact"), help="folder of the rule index"
    )
    run = commands.add_parser("run", help="run unfinished runs")
    run.add_argument("--data", type=Path, required=True, help="folder of labelled prompts from other sources")
    run.add_argument("--settings", type=Path, default=REGISTERED, help="file of experiments")
    run.add_argument("--experiment", action="append", help="run only this experiment (repeatable)")
    run.add_argument("--starts", help="run only these, comma-separated")
    run.add_argument("--methods", help="run only these, comma-separated")
    run.add_argument("--seeds", help="such as 0-9 or 3,5")
    run.add_argument("--out", type=Path, default=Path("runs/benchmarks/decision/results"))
    run.add_argument("--cache", type=Path, default=Path("runs/benchmarks/decision"))
    run.add_argument("--base", type=Path, default=Path(".cache/models/smollm2-135m"))
    report = commands.add_parser("report", help="print tables and plots of the saved runs")
    report.add_argument(
        "--collect",
        type=Path,
        metavar="OUT",
        help="first save the runs in this folder of results; replaces earlier results of the same runs",
    )
    report.add_argument("--settings", type=Path, default=REGISTERED, help="file of experiments")
    report.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    try:
        return {"hints": _hints, "run": _run, "report": _report}[options.command](options)
    except (OSError, ValueError, ValidationError, RuleServiceError, LocalModelError) as error:
        print(f"decision: {' '.join(str(error).split())}", file=sys.stderr)
        return 1


def _hints(options: argparse.Namespace) -> int:
    from transformers import AutoTokenizer

    from benchmarks.learning.decision.data.held_out_hints import make_hints
    from benchmarks.learning.decision.data.hints import write_hints
    from benchmarks.learning.decision.experiment.prompt_sets import PromptSets
    from benchmarks.learning.decision.experiment.settings import read_experiments
    from trainer.models import prepare_local_model

    tokenizer = AutoTokenizer.from_pretrained(prepare_local_model(options.base))
    prompts: dict[str, list[Prompt]] = {}
    for experiment in read_experiments(options.settings).values():
        if experiment.hint_share:
            sets = PromptSets.of(
                experiment,
                options.data,
                lambda prompt: len(tokenizer(prompt.prompt, add_special_tokens=False)["input_ids"]),
            )
            for name, chosen in sets.by_source().items():
                known = {prompt.id for prompt in prompts.setdefault(name, [])}
                prompts[name] += [prompt for prompt in chosen if prompt.id not in known]
    hints = make_hints(options.data, options.artefact, prompts)
    print(f"wrote {len(hints)} hints to {write_hints(options.cache, hints)}", file=sys.stderr)
    return 0


def _run(options: argparse.Namespace) -> int:
    # Two processes on two cores are faster than one with two threads. torch reads this when it loads.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from benchmarks.learning.decision.experiment.runner import RunFolders, run_experiment
    from benchmarks.learning.decision.experiment.settings import read_experiments

    experiments = read_experiments(options.settings)
    folders = RunFolders(options.out, options.cache, options.base, options.data)
    for name in options.experiment or experiments:
        if name not in experiments:
            raise ValueError(f"unknown experiment '{name}': {options.settings} has {', '.join(experiments)}")
        experiment = experiments[name]
        methods = options.methods.split(",") if options.methods else list(experiment.methods)
        if unknown := [method for method in methods if method not in experiment.methods]:
            raise ValueError(f"'{name}' has no method '{unknown[0]}': it has {', '.join(experiment.methods)}")
        run_experiment(
            name,
            experiment,
            folders,
            lambda line: print(line, file=sys.stderr, flush=True),
            starts=options.starts.split(",") if options.starts else list(experiment.starts),
            methods=methods,
            seeds=_parse_seeds(options.seeds) if options.seeds else list(range(experiment.seeds)),
        )
    return 0


def _parse_seeds(text: str) -> list[int]:
    seeds: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        seeds += range(int(first), int(last or first) + 1)
    return seeds


def _report(options: argparse.Namespace) -> int:
    from benchmarks.learning.decision.experiment.settings import read_experiments
    from benchmarks.learning.decision.experiment.watched import plot_watched
    from benchmarks.learning.decision.operating_points import SAFETY
    from benchmarks.learning.decision.report import (
        by_method,
        collect,
        format_tables,
        plot,
        plot_overview,
        plot_safety,
        summarize,
    )

    if options.collect:
        collected = collect(options.collect)
        updated = {_run_key(line) for line in collected}
        others = [line for line in _read_results() if _run_key(line) not in updated]
        RESULTS.write_text("".join(json.dumps(line) + "\n" for line in others + collected), encoding="utf-8")
    lines = _read_results()
    experiments = read_experiments(options.settings)
    if options.json:
        print(json.dumps(summarize(lines, experiments), indent=1))
    else:
        print(format_tables(lines, experiments))
        pictures = Path(__file__).parent / "pictures"
        for file in plot(lines, pictures) + plot_safety(lines, experiments, pictures):
            print(f"wrote {file}", file=sys.stderr)
        for name, starts in by_method(lines).items():
            training = experiments[name].training
            for methods in starts.values() if experiments[name].watched_per_source else ():
                plot_watched(methods, SAFETY, training.watch_every, pictures / f"{name}-watched.png")
        if hinted := by_method(lines).get("hinted"):
            plot_overview(hinted["locked-in"], experiments["hinted"].rewards, pictures / "overview.png")
    return 0


def _run_key(line: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(line[name] for name in ("experiment", "start", "method", "seed"))


def _read_results() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    sys.exit(main())
