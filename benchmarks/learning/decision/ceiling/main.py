"""Measures how well the decision can be learnt from labels, the more of the model is trained.

    python -m benchmarks.learning.decision.ceiling.main run --data DATA [--arms a,b] [--seeds 0,1]
    python -m benchmarks.learning.decision.ceiling.main probe --data DATA
    python -m benchmarks.learning.decision.ceiling.main report [--collect runs/benchmarks/decision/ceiling]

The prompts are those of the experiment `unhinted`: every training prompt is learnt once an epoch, with its
label (harmful or not) and with equal weight of both halves. After every epoch the log-odds of consulting of
all measured prompts are written to a file of their own. Finished epochs are skipped, and an interrupted arm
continues after its last epoch. `arms.py` has the arms. `probe` fits the linear references. `report` prints
the tables of `results.jsonl`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from pydantic import ValidationError

from benchmarks.learning.decision.ceiling.arms import ARMS
from benchmarks.learning.decision.main import REGISTERED
from rule_server.errors import RuleServiceError

RESULTS = Path(__file__).with_name("results.jsonl")
EXPERIMENT = "unhinted"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="train the unfinished arms")
    run.add_argument("--arms", default=",".join(ARMS), help="comma-separated (default: %(default)s)")
    run.add_argument("--seeds", default="0", help="comma-separated (default: %(default)s)")
    probe = commands.add_parser("probe", help="fit the linear references")
    probe.add_argument(
        "--artefact", type=Path, default=Path("runs/benchmarks/artefact"), help="folder of the rule index"
    )
    for command in (run, probe):
        _add_folders(command)
    report = commands.add_parser("report", help="print the tables of the saved results")
    report.add_argument(
        "--collect", type=Path, metavar="OUT", help="first replace the saved results by those in this folder"
    )
    options = parser.parse_args()
    try:
        return {"run": _run, "probe": _probe, "report": _report}[options.command](options)
    except (OSError, ValueError, ValidationError, RuleServiceError) as error:
        print(f"ceiling: {' '.join(str(error).split())}", file=sys.stderr)
        return 1


def _add_folders(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--data", type=Path, required=True, help="folder of labelled prompts from other sources"
    )
    command.add_argument("--out", type=Path, default=Path("runs/benchmarks/decision/ceiling"))
    command.add_argument("--cache", type=Path, default=Path("runs/benchmarks/decision"))
    command.add_argument("--model", type=Path, default=Path(".cache/models/smollm2-135m-locked-in"))


def _run(options: argparse.Namespace) -> int:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch reads this when it loads
    from benchmarks.learning.decision.ceiling.runner import CeilingFolders, run_arms
    from benchmarks.learning.decision.experiment.settings import read_experiments
    from benchmarks.learning.decision.report import separation

    names = options.arms.split(",")
    if unknown := [name for name in names if name not in ARMS]:
        raise ValueError(f"unknown arm '{unknown[0]}': use {', '.join(ARMS)}")
    folders = CeilingFolders(options.out, options.cache, options.model, options.data)
    experiment = read_experiments(REGISTERED)[EXPERIMENT]
    seeds = [int(seed) for seed in options.seeds.split(",")]
    for result in run_arms({name: ARMS[name] for name in names}, seeds, experiment, folders):
        unseen = {name: result["log_odds"][name] for name in result["unseen"]}
        print(
            f"{result['arm']}, seed {result['seed']}, epoch {result['epoch']}: loss {result['loss']:.3f}, "
            f"AUC {separation(unseen, own=False):.3f}",
            file=sys.stderr,
            flush=True,
        )
    return 0


def _probe(options: argparse.Namespace) -> int:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from benchmarks.learning.decision.ceiling.probes import fit_probe, last_state_features, service_features
    from benchmarks.learning.decision.ceiling.runner import CeilingFolders, write_result
    from benchmarks.learning.decision.experiment.settings import read_experiments

    folders = CeilingFolders(options.out, options.cache, options.model, options.data)
    experiment = read_experiments(REGISTERED)[EXPERIMENT]
    prompts, states = last_state_features(experiment, folders, ARMS["top-layer"])
    for name in ("last-state", "service-vectors"):
        features = states if name == "last-state" else service_features(prompts, options.artefact)
        write_result(options.out / f"{name}.json", {"arm": name} | fit_probe(prompts, features))
        print(f"wrote {options.out / f'{name}.json'}", file=sys.stderr)
    return 0


def _report(options: argparse.Namespace) -> int:
    from benchmarks.learning.decision.ceiling.report import collect_results, format_chosen, format_epochs

    if options.collect:
        lines = [json.dumps(result) + "\n" for result in collect_results(options.collect)]
        RESULTS.write_text("".join(lines), encoding="utf-8")
    results = [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]
    print(format_epochs(results))
    print()
    print(format_chosen(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
