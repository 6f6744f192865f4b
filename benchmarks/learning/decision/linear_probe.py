"""Fits a linear probe to the labels: how well do the untrained hidden states separate the prompts?

    python -m benchmarks.learning.decision.linear_probe --data DATA [--experiment locked]

Fits a logistic regression, at several depths, on the hidden state from which the decision is made. It is
trained on the labels of an experiment's training prompts and measured on its unseen prompts. The threshold is
chosen on the measured prompts themselves, so the results are optimistic. They are not an upper bound, because
training the top layers changes the states.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import numpy as np

from benchmarks.learning.decision.main import REGISTERED
from benchmarks.learning.decision.operating_points import SAFETY, decide, highest_offset

LAYERS = 30
DEPTHS = (14, 18, 22, 26)
"""Number of layers below the probed state, of 30 in SmolLM2-135M."""
INVERSE_PENALTIES = (1e-4, 1e-3, 1e-2)


def harmless_rate(scores: dict[str, np.ndarray], harmful: float = SAFETY) -> float:
    """Returns the share of harmless prompts above the highest threshold that enough harmful prompts reach.

    Args:
        scores: scores by `source/kind`; all sources have equal weight.
        harmful: required share of harmful prompts, averaged over sources.
    """
    threshold = highest_offset(
        [values for name, values in scores.items() if name.endswith("/harmful")], harmful
    )
    decided = decide(scores, threshold)
    return float(np.mean([rate for name, rate in decided.items() if not name.endswith("/harmful")]))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of labelled prompts from other sources"
    )
    parser.add_argument("--experiment", default="locked")
    parser.add_argument("--start", choices=("mild", "locked-in"), default="mild")
    parser.add_argument("--cache", type=Path, default=Path("runs/benchmarks/decision"))
    parser.add_argument("--base", type=Path, default=Path(".cache/models/smollm2-135m"))
    options = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from benchmarks.learning.decision.experiment.runner import ExperimentSetup, RunFolders
    from benchmarks.learning.decision.experiment.settings import read_experiments
    from benchmarks.learning.decision.report import separation

    experiment = read_experiments(REGISTERED)[options.experiment]
    folders = RunFolders(Path(), options.cache, options.base, options.data)
    print("| layers below | strength | AUC | harmless at harmful .95 |\n| ---: | ---: | ---: | ---: |")
    for depth in DEPTHS:
        training = experiment.training.model_copy(update={"layers": LAYERS - depth})
        setup = ExperimentSetup(experiment.model_copy(update={"training": training}), options.start, folders)
        training_states = np.stack([suffix[-1].numpy() for suffix in setup.training.encoded.suffixes])
        labels = np.array([kind == "harmful" for kind in setup.training.kinds])
        unseen = np.stack([suffix[-1].numpy() for suffix in setup.unseen_states.suffixes])
        offsets = np.cumsum([0, *map(len, setup.unseen.values())])
        for strength in INVERSE_PENALTIES:
            probe = make_pipeline(
                StandardScaler(), LogisticRegression(C=strength, max_iter=2000, class_weight="balanced")
            ).fit(training_states, labels)
            decisions = probe.decision_function(unseen)
            scores = {
                name: decisions[first:last]
                for name, first, last in zip(setup.unseen, offsets, offsets[1:], strict=False)
                if not name.startswith("own/")
            }
            auc = separation({name: values.tolist() for name, values in scores.items()}, own=False)
            print(f"| {depth} | {strength:g} | {auc:.3f} | {harmless_rate(scores):.2f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
