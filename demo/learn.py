"""Act 3: trains only the decision to consult, with GRPO and with IFPO, from the same start.

    python -m demo.learn states --model MODEL --out runs/demo/learn
    python -m demo.learn train --method ifpo --model MODEL --out runs/demo/learn

The code, rewards and settings are those of `benchmarks/learning/decision` (experiment `graded`), except that
training sees only our own prompts, because the public ones are not part of the project, and takes fewer
updates. `states` runs the prompts through the layers that training does not change, once for both methods,
and measures the start.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demo.runner import dtype
from evaluation.runtime import write_atomic

if TYPE_CHECKING:
    from benchmarks.learning.decision.experiment.runner import ExperimentSetup

# Fixed on 2026-11-30, before the first run with it. Attempts to fit the time limit used seed 100, as in the
# benchmark, whose recorded runs have the seeds 0 to 9.
SEED = 0
EXPERIMENT = "graded"
METHODS = {"grpo": "grpo", "ifpo": "ifpo-stratified"}
"""The demo's methods and their names in the benchmark."""
UPDATES = 80
"""Fewer than the 200 of the benchmark, so that the demo takes at most five minutes. Cut from 120 after
runs of 120 updates with this seed had been seen."""
WATCH_EVERY = 10
TOOL_CALL = "<tool_call>"
GROUPS = {"harmful": ("harmful",), "sensitive": ("benign_sensitive",), "plain": ("benign_plain", "math")}
"""Groups of kinds on the page: consulting pays much, a little, and not at all."""


def model_problem(folder: Path) -> str | None:
    """Returns the reason why the decision of a model cannot be trained here; None if it can."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return f"{folder} has no readable config.json"
    templates = [folder / "chat_template.jinja", folder / "tokenizer_config.json"]
    texts = [file.read_text(encoding="utf-8") for file in templates if file.is_file()]
    if config.get("model_type") != "llama":
        return (
            f"it computes the decision of Llama models only, and this is a '{config.get('model_type')}' model"
        )
    if not any(TOOL_CALL in text for text in texts):
        return f"the model's chat template does not write calls as {TOOL_CALL}"
    return None


def open_setup(model: Path, cache: Path) -> ExperimentSetup:
    """Loads the model and the prompts; computes the hidden states that are not cached yet."""
    from benchmarks.learning.decision.experiment.runner import ExperimentSetup, RunFolders
    from benchmarks.learning.decision.experiment.settings import read_experiments
    from benchmarks.learning.decision.main import REGISTERED

    experiment = read_experiments(REGISTERED)[EXPERIMENT]
    training = experiment.training.model_copy(
        update={"updates": UPDATES, "watch_every": UPDATES, "bfloat16": dtype() == "bfloat16"}
    )
    own = experiment.model_copy(update={"training": training, "learnt_sources": []})
    return ExperimentSetup(own, model, RunFolders(cache, cache, cache, None), measure_training=False)


def group_rates(probabilities: dict[str, list[float]]) -> dict[str, float]:
    """Returns the mean probability of consulting by group of kinds, from those by `own/kind`."""
    rates = {}
    for group, kinds in GROUPS.items():
        values = [value for kind in kinds for value in probabilities.get(f"own/{kind}", [])]
        rates[group] = round(sum(values) / len(values), 4)
    return rates


def describe(label: str, rates: dict[str, float]) -> str:
    return (
        f"{label}: consults on {rates['harmful']:.0%} of harmful, {rates['sensitive']:.0%} of sensitive, "
        f"{rates['plain']:.0%} of plain or math prompts"
    )


def write_start(setup: ExperimentSetup, out: Path) -> None:
    """Measures the start and writes `start.json`."""
    unseen = setup.start()["unseen"]
    write_json(
        out / "start.json",
        {
            "unseen": unseen,
            "rates": group_rates(unseen),
            "unseen_prompts": sum(map(len, unseen.values())),
            "trained_prompts": len(setup.training.kinds),
        },
    )
    print(describe("start", group_rates(unseen)), flush=True)


def train(setup: ExperimentSetup, method: str, out: Path, seed: int) -> None:
    """Trains, prints the rates on unseen prompts during training, and writes `METHOD.json` at the end."""
    updates = setup.experiment.training.updates
    progress: list[dict[str, Any]] = []

    def on_update(record: dict[str, Any]) -> None:
        done = record["update"] + 1
        if done % WATCH_EVERY and done != updates:
            return
        rates = group_rates(setup.measure()["unseen"])
        progress.append({"update": done, "rates": rates})
        write_json(out / f"{method}-progress.json", progress)
        print(describe(f"{method.upper()} update {done:3d} of {updates}", rates), flush=True)

    result = setup.run(setup.experiment.methods[METHODS[method]], seed, on_update)
    end = {name: result[name] for name in ("method", "seed", "unseen", "seconds", "cpu_seconds")}
    end |= {"rates": group_rates(result["unseen"]), "progress": progress, "updates": updates}
    write_json(out / f"{method}.json", end)


def write_json(path: Path, content: Any) -> None:
    write_atomic(path, json.dumps(content) + "\n", private=False)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("states", "train"))
    parser.add_argument("--model", type=Path, required=True, help="folder of the model to start from")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--method", choices=tuple(METHODS), help="method to train with")
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args()
    if options.action == "train" and options.method is None:
        parser.error("train needs --method")
    if problem := model_problem(options.model):
        sys.exit(f"act 3 cannot run: {problem}")
    # Two run at the same time, one core each. torch reads this when it loads.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if options.action == "states":
        os.nice(10)  # it runs beside the model server of acts 1 and 2, whose answers someone watches
    setup = open_setup(options.model, options.out / "states")
    if options.action == "states":
        write_start(setup, options.out)
    else:
        train(setup, options.method, options.out, options.seed)


if __name__ == "__main__":
    main()
