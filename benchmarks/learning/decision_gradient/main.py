"""Signal and noise of the decision's gradient in whole episodes: GRPO, IFPO and exact strata.

    python -m benchmarks.learning.decision_gradient.main run --out DIR [--per-kind N] [--seconds S]
    python -m benchmarks.learning.decision_gradient.main report --out DIR [--save]

`run` samples episodes of each prompt that are forced to consult or to answer directly, with the real model,
rules and rewards, and stores their gradients. It resumes where it stopped. `report` prints the figures of
each method; `--save` stores the prompts' lines and the figures beside this script.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

DATA = Path(__file__).with_name("data")
PROMPTS = ("builtin:train", "builtin:held_out")
KINDS = ("harmful", "benign_sensitive", "benign_plain")
PROBABILITY = 0.9
"""Probability of consulting assumed for every prompt, as registered in RESULTS.md."""


def interleave(rows: Sequence[dict[str, Any]], per_kind: int) -> list[dict[str, Any]]:
    """Returns up to `per_kind` prompts of each kind, one of each kind in turn."""
    kinds = [[row for row in rows if row["kind"] == kind][:per_kind] for kind in KINDS]
    return [row for index in range(per_kind) for kind in kinds for row in kind[index : index + 1]]


@contextmanager
def rule_service(url: str | None, out: Path) -> Iterator[str]:
    """Yields the MCP address of a rule service; starts one with one rule per consultation without `url`."""
    if url is not None:
        yield url
        return
    from evaluation.runtime import PACKAGED_RULES, run_rule_service

    with run_rule_service(PACKAGED_RULES, out / "artefact", out / "rules.log", 1) as address:
        yield f"{address}/mcp"


def run(options: argparse.Namespace) -> int:
    """Measures the remaining prompts; returns their number."""
    from benchmarks.learning.decision_gradient.gradients import AdapterGradients
    from benchmarks.learning.decision_gradient.measure import Measurement, measure
    from benchmarks.learning.decision_gradient.rollout.sampling import Sampler
    from benchmarks.learning.decision_gradient.rollout.start import load_start
    from trainer.stages.online.rule_tool import BatchedRuleTool
    from trainer.stages.online.stage import load_prompt_rows
    from trainer.stages.online.strata.call_opening import find_call_opening

    options.out.mkdir(parents=True, exist_ok=True)
    model, tokenizer = load_start(options.base, None if options.no_adapter else options.adapter)
    with rule_service(options.rules_url, options.out) as url, BatchedRuleTool(url) as tool:
        gradients = AdapterGradients(options.base, model, options.layers, 16, Sampler.temperature)
        sampler = Sampler(
            model,
            tokenizer,
            find_call_opening(tokenizer, tool.tool),
            tool,
            frozenset({tokenizer.eos_token_id}),
            gradients.first,
        )
        rows = [row for spec in options.prompts for row in load_prompt_rows(spec, guidance=tool.guidance)]
        shard, shards = (int(part) for part in options.shard.split("/"))
        prompts = interleave(rows, options.per_kind)
        chosen = [row for place, row in enumerate(prompts) if place // 3 % shards == shard]
        settings = Measurement(
            probability=options.probability or None,
            seed=shard,
            rest_every=options.rest_every,
            seconds=options.seconds,
        )
        left = measure(chosen, sampler, gradients, options.out, settings)
    print(f"decision_gradient: {left} prompts are left", file=sys.stderr)
    return left


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=("run", "report"))
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/decision-gradient"))
    parser.add_argument("--base", type=Path, default=Path(".cache/models/smollm2-135m"))
    parser.add_argument("--adapter", type=Path, default=Path("trainer/models/adapters/cold-start"))
    parser.add_argument("--no-adapter", action="store_true", help="start from the base model itself")
    parser.add_argument("--prompts", nargs="+", default=PROMPTS, help="files or built-in sets")
    parser.add_argument("--per-kind", type=int, default=24, help="prompts of each kind")
    parser.add_argument("--rest-every", type=int, default=3, help="measure all tokens of every n-th prompt")
    parser.add_argument("--layers", type=int, default=4, help="top layers with an adapter")
    parser.add_argument(
        "--probability", type=float, default=PROBABILITY, help="of consulting; 0 for the model's own"
    )
    parser.add_argument("--shard", default="0/1", help="i/n: every n-th batch, from the i-th on")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no batch after so long")
    parser.add_argument("--rules-url", help="MCP address of a rule service (default: start one)")
    parser.add_argument("--save", action="store_true", help="keep the lines and figures in data/")
    options = parser.parse_args()
    try:
        if options.command == "run":
            run(options)
            return 0
        return report(options)
    except (FileNotFoundError, ValueError) as error:
        print(f"decision_gradient: {error}", file=sys.stderr)
        return 1


def report(options: argparse.Namespace) -> int:
    """Prints the figures of the measured prompts, and stores them with `--save`."""
    from benchmarks.learning.decision_gradient.figures.analysis import analyse
    from benchmarks.learning.decision_gradient.figures.tables import format_tables, plot
    from benchmarks.learning.decision_gradient.measure import load_measured

    measured = load_measured(options.out)
    figures = analyse(measured, options.probability or None)
    print(format_tables(figures))
    if options.save:
        lines = [json.dumps(each.row) + "\n" for each in measured]
        (DATA / "prompts.jsonl").write_text("".join(lines), encoding="utf-8")
        (DATA / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        plot(figures, DATA / "snr.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
