"""Splits the decisions on sensitive prompts by the rule that a consultation would return first.

    python -m benchmarks.learning.decision.answer_rules --data DATA --model MODEL --artefact ARTEFACT

Consulting about a harmless prompt costs little if an `answer` rule comes first, because the rule says that
the question may be answered. The runs are those of `results.jsonl` that stored the log-odds of each prompt.
MODEL is the folder of the model whose tokenizer chose the prompts.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer

from benchmarks.learning.decision.experiment.prompt_sets import PromptSets, Sets
from benchmarks.learning.decision.experiment.settings import read_experiments
from benchmarks.learning.decision.main import REGISTERED
from benchmarks.learning.decision.operating_points import SETS, offsets
from rule_server.retrieval import split_into_windows
from rule_server.retrieval.build import LoadedIndex, load_or_build
from rule_server.retrieval.index import threshold_for
from rule_server.settings import load_settings

RESULTS = Path(__file__).with_name("results.jsonl")
SENSITIVE = "/benign_sensitive"
NOTHING = "no rule"


def first_stances(loaded: LoadedIndex, sets: Sets) -> dict[str, list[str]]:
    """Returns the stance of the first rule for each prompt, or `no rule`, by `source/kind`."""
    index, threshold = loaded.index, threshold_for(loaded.index, None).value
    stances: dict[str, list[str]] = {}
    for name, prompts in sets.items():
        for prompt in prompts:
            scores = index.scores(loaded.encoder.encode(split_into_windows(prompt.prompt)))
            hits = index.select(scores, top_k=1, threshold=threshold)
            stances.setdefault(name, []).append(hits[0].rule.stance if hits else NOTHING)
    return stances


def split_rates(line: Mapping[str, Any], stances: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Returns the consult rate of a run on unseen sensitive prompts, at the ideal offset, by first stance."""
    offset = offsets(line)[SETS[-1]]
    decided: dict[str, list[bool]] = defaultdict(list)
    for name, own in stances.items():
        for odds, stance in zip(line["log_odds"][name], own, strict=True):
            decided[stance].append(odds >= offset)
    return {stance: float(np.mean(values)) for stance, values in decided.items()}


def main() -> None:
    """Parses the options and prints the table: means over the runs of a method."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    for name, text in (
        ("data", "folder of labelled prompts"),
        ("model", "model folder"),
        ("artefact", "index"),
    ):
        parser.add_argument(f"--{name}", type=Path, required=True, help=text)
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(options.model)

    def length(prompt: Any) -> int:
        return len(tokenizer(prompt.prompt, add_special_tokens=False)["input_ids"])

    experiment = read_experiments(REGISTERED)["hinted"]
    unseen = PromptSets.of(experiment, options.data, length).unseen
    sensitive = {
        name: prompts
        for name, prompts in unseen.items()
        if name.endswith(SENSITIVE) and not name.startswith("own/")
    }
    loaded = load_or_build(
        load_settings(artefact=options.artefact, watch=False), lambda text: print(text, file=sys.stderr)
    )
    stances = first_stances(loaded, sensitive)
    runs: dict[tuple[str, str], list[dict[str, float]]] = defaultdict(list)
    for row in RESULTS.read_text(encoding="utf-8").splitlines():
        line = json.loads(row)
        if "log_odds" in line:
            runs[line["experiment"], line["method"]].append(split_rates(line, stances))
    counts = Counter(one for own in stances.values() for one in own)
    names = [name for name, _ in counts.most_common()]
    print("| experiment, method | runs | " + " | ".join(f"{one} ({counts[one]})" for one in names) + " |")
    print("| --- | ---: |" + " ---: |" * len(names))
    for (experiment_name, method), rates in runs.items():
        means = [f"{np.mean([each[one] for each in rates]):.2f}" for one in names]
        print(f"| {experiment_name}, {method} | {len(rates)} | " + " | ".join(means) + " |")


if __name__ == "__main__":
    main()
