"""Trains SmolLM2-135M with IFPO and its rivals on whole episodes, with the rule service and real rewards.

    python -m benchmarks.learning.tradeoff.main run [--size full|short|steep|quick] [--seeds N|A,B] ...
    python -m benchmarks.learning.tradeoff.main collect [--out DIR] [--size SIZE]   # save the measurements
    python -m benchmarks.learning.tradeoff.main report [--size SIZE] [--json]       # saved results

Every method and seed is an `ascl-train loop`: the model is served, samples episodes that consult a real rule
service, is rewarded by the refusal detector, trains on its log, and is served again. The final model is
measured on `builtin:held_out`, which is never trained on, with access to the rules (`adaptive`). The initial
model is measured in all four arms. An interrupted run can be resumed; the full run takes hours.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.learning.tradeoff.report import Row, collect, format_tables, plot, summarize
from demo.runner import dtype
from evaluation.prompts import load_prompts

RESULTS = Path(__file__).with_name("results.jsonl")
TRAINED_ON = "builtin:train"
EVALUATED_ON = "builtin:held_out"
ARMS = ("none", "in-prompt", "always", "adaptive")
SERVE = (
    f"transformers serve {{model}} --host 127.0.0.1 --port {{port}} --device cpu --dtype {dtype()} "
    "--continuous-batching --cb-block-size 16 --cb-num-blocks 1024 --cb-max-batch-tokens 512"
)
METHODS: dict[str, dict[str, Any]] = {
    "grpo": {"train": {"method": "grpo"}},
    "grpo-cost": {"train": {"method": "grpo+cost", "cost": 0.1}},
    "ifpo": {"train": {"method": "ifpo"}},
    "ifpo-stratified": {
        "train": {"method": "ifpo"},
        "sampling": {"mode_share": {"consult": 0.2, "direct": 0.2}},
    },
    "ifpo-stratified-drawn": {
        "train": {"method": "ifpo"},
        "sampling": {"mode_share": {"consult": 0.2, "direct": 0.2}, "direct_draws": 64},
    },
}
"""Changes of each method to the settings of `ascl-train loop`."""
DEFAULT_METHODS = ("grpo", "grpo-cost", "ifpo", "ifpo-stratified")
"""Methods that run by default."""
RULES_PER_CONSULTATION = 1
"""As in the demonstrations of the cold starts."""
SIZES: dict[str, dict[str, Any]] = {
    "full": {"rounds": 6, "samples": 8, "measured": 2, "learning_rate": 3e-4},
    "short": {"rounds": 1, "samples": 6, "measured": 2, "learning_rate": 3e-4},
    "steep": {"rounds": 1, "samples": 6, "measured": 2, "learning_rate": 1e-3, "first_logs_of": "short"},
    "quick": {"rounds": 1, "samples": 3, "measured": 1, "learning_rate": 3e-4, "every": 4},
}
"""`short` takes an afternoon. `steep` trains on the logs of `short` with a higher learning rate; its seeds
use them in turn. `quick` is a smoke test with every fourth prompt."""
COMPUTE: dict[str, Any] = (
    {"bf16": True, "use_cpu": True, "model_init_kwargs": {"dtype": "bfloat16"}}
    if dtype() == "bfloat16"
    else {}
)
"""Precision settings: bfloat16 halves the training time on processors that support it."""


@dataclass(frozen=True)
class Services:
    """Services of the benchmark: the model server, the rules, and the launcher of the training."""

    rules: str | None = None
    """MCP address; None serves the packaged rulebook."""
    serve: str = SERVE
    launcher: str | None = None


def loop_settings(
    method: str, seed: int, size: str, model: Path, services: Services, prompts: str = TRAINED_ON
) -> Any:
    """Returns the settings of a loop."""
    from trainer.orchestration import LoopSettings

    changes = METHODS[method]
    return LoopSettings.model_validate(
        {
            "model": str(model),
            "rounds": SIZES[size]["rounds"],
            "serve": services.serve,
            "rules": services.rules,
            "rules_top_k": None if services.rules else RULES_PER_CONSULTATION,
            "launcher": services.launcher,
            "sampling": {
                "prompts": prompts,
                "samples": SIZES[size]["samples"],
                "temperature": 0.7,
                "max_tokens": 48,
                "max_turns": 3,
                "seed": None,  # the server does not support seeds
            }
            | changes.get("sampling", {}),
            "floor": None,
            "train": {
                "max_length": 640,
                "lora_layers": 8,
                "learning_rate": SIZES[size]["learning_rate"],
                "lr_scheduler_type": "constant_with_warmup",
                "warmup_steps": 2,
                "num_train_epochs": 1,
                "per_device_train_batch_size": 2,
                "gradient_accumulation_steps": 2,
                "off_policy_mask_threshold": 0.5,
                "seed": seed,
            }
            | COMPUTE
            | changes["train"],
        }
    )


def select_prompts(name: str, runs: Path, size: str) -> str:
    """Returns the prompts of a size: the named set, or a file with every n-th of its prompts."""
    every = SIZES[size].get("every", 1)
    if every == 1:
        return name
    file = runs / f"{Path(name.removeprefix('builtin:')).stem}.jsonl"
    runs.mkdir(parents=True, exist_ok=True)
    lines = [prompt.model_dump_json(exclude_none=True) for prompt in load_prompts(name)[::every]]
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(file)


def measure(
    model: str, arms: Sequence[str], folder: Path, size: str, services: Services, prompts: str
) -> None:
    """Samples and scores the prompts in each arm that is not finished."""
    from trainer.orchestration import serve_model

    unfinished = [arm for arm in arms if not (folder / f"{arm}.done").is_file()]
    if not unfinished:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with serve_model(services.serve, str(Path(model).resolve()), folder / "server.log") as url:
        for arm in unfinished:
            subprocess.run(
                [
                    *(sys.executable, "-m", "evaluation.cli", "run", "--prompts", prompts),
                    *("--log", str(folder / f"{arm}.jsonl"), "--arm", arm, "--base-url", url),
                    *("--model", str(Path(model).resolve()), "--rules-url", str(services.rules)),
                    *("--samples", str(SIZES[size]["measured"]), "--temperature", "0.7"),
                    *("--max-tokens", "48", "--max-turns", "3", "--concurrency", "16"),
                ],
                check=True,
                stdout=sys.stderr,
            )
            if arm == "adaptive":
                _write_consult_probabilities(Path(model), folder, prompts)
            (folder / f"{arm}.done").touch()


def _write_consult_probabilities(model: Path, folder: Path, prompt_set: str) -> None:
    """Writes the probability that the reply begins with a consultation, by prompt, at temperature 1.

    Unlike a consult rate, it has no sampling noise.
    """
    from benchmarks.learning.decision.model.policy import DecisionPolicy

    prompts = load_prompts(prompt_set)
    policy = DecisionPolicy(model, layers=1, rank=1)
    probabilities = policy.consult_probabilities(
        policy.encode([each.prompt for each in prompts], folder / "hidden")
    )
    rows = [
        {"id": prompt.id, "kind": prompt.kind, "consult": round(float(probability), 6)}
        for prompt, probability in zip(prompts, probabilities.tolist(), strict=True)
    ]
    (folder / "consulting.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(folder / "hidden")


def run(
    runs: Path, size: str, methods: Sequence[str], seeds: Sequence[int], model: Path, services: Services
) -> None:
    """Runs all unfinished work: the initial model in all arms, then every method, seed by seed."""
    from trainer.orchestration import run_loop

    with _rule_service(services, runs) as running:
        training_prompts, evaluation_prompts = (
            select_prompts(name, runs, size) for name in (TRAINED_ON, EVALUATED_ON)
        )
        measure(str(model), ARMS, runs / "start", size, running, evaluation_prompts)
        for seed in seeds:
            for method in methods:
                folder = runs / f"{method}-{seed:02d}"
                settings = loop_settings(method, seed, size, model, services, training_prompts)
                _copy_first_log_of_method(runs, method, seed)
                if logs := SIZES[size].get("first_logs_of"):
                    _copy_first_log_of_size(
                        runs, runs.with_name(runs.name.replace(size, logs, 1)), method, seed
                    )
                record = run_loop(settings, folder / "loop", _notify)
                after = folder / f"after-{settings.rounds}"
                measure(record["model"], ("adaptive",), after, size, running, evaluation_prompts)


def _copy_first_log_of_method(runs: Path, method: str, seed: int) -> None:
    """Copies the first round's episodes from a method with the same sampling settings, if there is one.

    All methods start from one model, so that a shared first log allows paired comparisons and is sampled only
    once.
    """
    first = runs / f"{method}-{seed:02d}" / "loop" / "rounds" / "001"
    if first.is_dir():
        return
    for other in METHODS:
        source = runs / f"{other}-{seed:02d}" / "loop" / "rounds" / "001"
        same_sampling = METHODS[other].get("sampling") == METHODS[method].get("sampling")
        if same_sampling and (source / "episodes.done").is_file():
            _copy_log(source, first)
            return


def _copy_first_log_of_size(runs: Path, others: Path, method: str, seed: int) -> None:
    """Copies the first round's episodes from a run of another size. Seeds use the available logs in turn."""
    first = runs / f"{method}-{seed:02d}" / "loop" / "rounds" / "001"
    same_sampling = [
        name for name in METHODS if METHODS[name].get("sampling") == METHODS[method].get("sampling")
    ]
    finished = sorted(
        path.parent for path in others.glob(f"{same_sampling[0]}-[0-9][0-9]/loop/rounds/001/episodes.done")
    )
    if finished and not first.is_dir():
        _copy_log(finished[seed % len(finished)], first)


def _copy_log(source: Path, target: Path) -> None:
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for file in source.glob("episodes*"):
        shutil.copy(file, partial)
    partial.replace(target)


def _notify(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextmanager
def _rule_service(services: Services, out: Path) -> Iterator[Services]:
    """Yields the services with an address of the rules; starts the packaged rulebook if there is none."""
    if services.rules is not None:
        yield services
        return
    from evaluation.runtime import PACKAGED_RULES, run_rule_service

    # The loops do not use this address but serve the rules themselves: it changes with every start, and a
    # loop can only be resumed with unchanged settings.
    with run_rule_service(PACKAGED_RULES, out / "artefact", out / "rules.log", RULES_PER_CONSULTATION) as url:
        yield Services(f"{url}/mcp", services.serve, services.launcher)


def _read_results() -> list[Row]:
    if not RESULTS.is_file():
        return []
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]


def _save_results(rows: list[Row]) -> None:
    """Replaces the saved rows of the same runs, and plots the results of their size."""
    updates = {_run_key(row): row for row in rows}
    rows = [row for row in _read_results() if _run_key(row) not in updates] + list(updates.values())
    RESULTS.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    size, start = rows[-1]["size"], rows[-1]["start"]
    selected = [row for row in rows if (row["size"], row["start"]) == (size, start)]
    plot(selected, RESULTS.parent / "pictures" / f"{size}_{start}.png")


def _run_key(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("size", "start", "method", "seed", "rounds", "arm"))


def _parse_seeds(text: str) -> Sequence[int]:
    return [int(seed) for seed in text.split(",") if seed] if "," in text else range(int(text))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=("run", "collect", "report"))
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/tradeoff"))
    parser.add_argument("--size", choices=tuple(SIZES), default="full", help="size of the experiment")
    parser.add_argument("--quick", action="store_true", help="smoke test: one short round, one seed")
    parser.add_argument(
        "--seeds",
        type=_parse_seeds,
        help="number of seeds (5), or a list such as 2,3; reports default to all",
    )
    parser.add_argument(
        "--methods", default=",".join(DEFAULT_METHODS), help=f"comma-separated: {', '.join(METHODS)}"
    )
    parser.add_argument(
        "--cache", type=Path, default=Path("runs/benchmarks/decision"), help="folder of the cold starts"
    )
    # There is no `locked-in` start here: it was trained on calls only, so it never answers and earns no
    # reward.
    parser.add_argument(
        "--start", choices=("mild", "whole", "habitual", "locked-in-whole"), default="habitual"
    )
    parser.add_argument("--base", type=Path, default=Path(".cache/models/smollm2-135m"))
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    options = parser.parse_args()
    size = "quick" if options.quick else options.size
    runs = options.out / f"{size}-{options.start}"
    methods = options.methods.split(",")
    if unknown := [method for method in methods if method not in METHODS]:
        print(f"tradeoff: unknown method '{unknown[0]}': use one of {', '.join(METHODS)}", file=sys.stderr)
        return 1
    if options.command == "collect":
        rows = collect(runs, SIZES[size]["rounds"])
        if not rows:
            print(f"tradeoff: no runs in '{runs}': run the experiment first", file=sys.stderr)
            return 1
        _save_results([{"size": size, "start": options.start, **row} for row in rows])
    if options.command in ("collect", "report"):
        rounds = (0, SIZES[size]["rounds"])
        rows = [row for row in _read_results() if (row["size"], row["start"]) == (size, options.start)]
        rows = [row for row in rows if row["rounds"] in rounds]
        rows = [row for row in rows if options.seeds is None or row["seed"] in options.seeds]
        if not rows:
            print(f"tradeoff: {RESULTS} has no runs of '{size}' from '{options.start}'", file=sys.stderr)
            return 1
        results = summarize(rows)
        print(json.dumps(results, indent=1) if options.json else format_tables(results))
        return 0
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from benchmarks.learning.decision.model.cold_start import cold_start

    model = cold_start(options.start, options.cache, options.base)
    run(runs, size, methods, [0] if options.quick else options.seeds or range(5), model, Services())
    return 0


if __name__ == "__main__":
    sys.exit(main())
