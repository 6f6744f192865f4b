"""Whole episodes through the rule service, with real rewards: IFPO beside its rivals on SmolLM2-135M.

    python -m benchmarks.learning.tradeoff.main run [--size full|short|steep|quick] [--seeds N|A,B] ...
    python -m benchmarks.learning.tradeoff.main collect [--out DIR] [--size SIZE]   # keep what was measured
    python -m benchmarks.learning.tradeoff.main report [--size SIZE] [--json]       # what was kept

Every method and seed is an `ascl-train loop`: the model is served, samples episodes that consult a real rule
service, is rewarded by the refusal detector, trains on its log, and is served again. The model that comes of
it is measured on `builtin:held_out`, which nothing trains on, with the rules at hand (`adaptive`); the model
that all start from is measured in all four arms. It goes on where it was stopped; the full run takes hours.
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
from demo import dtype
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
"""What each method changes in the settings of `ascl-train loop`."""
DEFAULT_METHODS = ("grpo", "grpo-cost", "ifpo", "ifpo-stratified")
"""Methods that are run unless others are named."""
RULES_PER_CONSULTATION = 1
"""Rules a consultation: what the cold starts were shown."""
SIZES: dict[str, dict[str, Any]] = {
    "full": {"rounds": 6, "samples": 8, "measured": 2, "learning_rate": 3e-4},
    "short": {"rounds": 1, "samples": 6, "measured": 2, "learning_rate": 3e-4},
    "steep": {"rounds": 1, "samples": 6, "measured": 2, "learning_rate": 1e-3, "first_logs_of": "short"},
    "quick": {"rounds": 1, "samples": 3, "measured": 1, "learning_rate": 3e-4, "every": 4},
}
"""`short` fits into an afternoon; `steep` learns from the logs of `short` in longer steps, its seeds taking
them in turn; `quick` shows that everything runs, with every fourth prompt."""
COMPUTE: dict[str, Any] = (
    {"bf16": True, "use_cpu": True, "model_init_kwargs": {"dtype": "bfloat16"}}
    if dtype() == "bfloat16"
    else {}
)
"""How training multiplies: half as long where the processor multiplies in bfloat16."""


@dataclass(frozen=True)
class Services:
    """What runs beside the benchmark: who serves a model, where the rules are, what starts training."""

    rules: str | None = None
    """MCP address; None serves the packaged rulebook."""
    serve: str = SERVE
    launcher: str | None = None


def loop_settings(
    method: str, seed: int, size: str, model: Path, services: Services, prompts: str = TRAINED_ON
) -> Any:
    """The settings of one loop."""
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
                "seed": None,  # the server takes none
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
    """The prompts of a size: all, or every fourth one, say, as a file among its runs."""
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
    """Sample and score the measured prompts in each arm, unless that was done."""
    from trainer.orchestration import serve_model

    left = [arm for arm in arms if not (folder / f"{arm}.done").is_file()]
    if not left:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with serve_model(services.serve, str(Path(model).resolve()), folder / "server.log") as url:
        for arm in left:
            subprocess.run(
                [
                    *(sys.executable, "-m", "evaluation.cli", "run", "--prompts", prompts),
                    *("--log", str(folder / f"{arm}.jsonl"), "--arm", arm, "--base-url", url),
                    *("--model", str(Path(model).resolve()), "--rules", str(services.rules)),
                    *("--samples", str(SIZES[size]["measured"]), "--temperature", "0.7"),
                    *("--max-tokens", "48", "--max-turns", "3", "--concurrency", "16"),
                ],
                check=True,
                stdout=sys.stderr,
            )
            if arm == "adaptive":
                _write_consult_probabilities(Path(model), folder, prompts)
            (folder / f"{arm}.done").touch()


def _write_consult_probabilities(model: Path, folder: Path, measured: str) -> None:
    """The probability of consulting at once on each measured prompt, at temperature 1: no sampling noise."""
    from benchmarks.learning.decision.model.policy import DecisionPolicy

    prompts = load_prompts(measured)
    policy = DecisionPolicy(model, layers=1, rank=1)
    chances = policy.consult_probabilities(
        policy.encode([each.prompt for each in prompts], folder / "hidden")
    )
    found = [
        {"id": prompt.id, "kind": prompt.kind, "consult": round(float(chance), 6)}
        for prompt, chance in zip(prompts, chances.tolist(), strict=True)
    ]
    (folder / "consulting.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(folder / "hidden")


def run(
    runs: Path, size: str, methods: Sequence[str], seeds: Sequence[int], model: Path, services: Services
) -> None:
    """Everything that is not done yet: the start in all arms, then seed by seed every method."""
    from trainer.orchestration import run_loop

    with _rule_service(services, runs) as ready:
        trained, measured = (select_prompts(name, runs, size) for name in (TRAINED_ON, EVALUATED_ON))
        measure(str(model), ARMS, runs / "start", size, ready, measured)
        for seed in seeds:
            for method in methods:
                folder = runs / f"{method}-{seed:02d}"
                settings = loop_settings(method, seed, size, model, services, trained)
                _copy_first_log_of_method(runs, method, seed)
                if logs := SIZES[size].get("first_logs_of"):
                    _copy_first_log_of_size(
                        runs, runs.with_name(runs.name.replace(size, logs, 1)), method, seed
                    )
                record = run_loop(settings, folder / "loop", _notify)
                after = folder / f"after-{settings.rounds}"
                measure(record["model"], ("adaptive",), after, size, ready, measured)


def _copy_first_log_of_method(runs: Path, method: str, seed: int) -> None:
    """Give a loop the first round's episodes of another one that samples alike.

    All start from one model, so that this log is the same draw for them: what they make of it can be compared
    pair by pair, and it is sampled once.
    """
    first = runs / f"{method}-{seed:02d}" / "loop" / "rounds" / "001"
    if first.is_dir():
        return
    for other in METHODS:
        source = runs / f"{other}-{seed:02d}" / "loop" / "rounds" / "001"
        alike = METHODS[other].get("sampling") == METHODS[method].get("sampling")
        if alike and (source / "episodes.done").is_file():
            _copy_log(source, first)
            return


def _copy_first_log_of_size(runs: Path, others: Path, method: str, seed: int) -> None:
    """Give a loop the first round's episodes of another size's run; the seeds take what there is in turn."""
    first = runs / f"{method}-{seed:02d}" / "loop" / "rounds" / "001"
    alike = [name for name in METHODS if METHODS[name].get("sampling") == METHODS[method].get("sampling")]
    done = sorted(path.parent for path in others.glob(f"{alike[0]}-[0-9][0-9]/loop/rounds/001/episodes.done"))
    if done and not first.is_dir():
        _copy_log(done[seed % len(done)], first)


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
    """The services with the address of the rules: a given one, or that of the packaged rulebook's."""
    if services.rules is not None:
        yield services
        return
    from evaluation.runtime import PACKAGED_RULES, run_rule_service

    # The loops are not given this address but serve the rules themselves: it differs from sitting to sitting,
    # and a loop goes on with its own settings only.
    with run_rule_service(PACKAGED_RULES, out / "artefact", out / "rules.log", RULES_PER_CONSULTATION) as url:
        yield Services(f"{url}/mcp", services.serve, services.launcher)


def _read_results() -> list[Row]:
    if not RESULTS.is_file():
        return []
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]


def _save_results(rows: list[Row]) -> None:
    """Put rows in place of those of the same runs, and draw the picture of their size."""
    new = {_run_key(row): row for row in rows}
    rows = [row for row in _read_results() if _run_key(row) not in new] + list(new.values())
    RESULTS.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    size, start = rows[-1]["size"], rows[-1]["start"]
    chosen = [row for row in rows if (row["size"], row["start"]) == (size, start)]
    plot(chosen, RESULTS.parent / "pictures" / f"{size}_{start}.png")


def _run_key(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("size", "start", "method", "seed", "rounds", "arm"))


def _parse_seeds(given: str) -> Sequence[int]:
    return [int(seed) for seed in given.split(",") if seed] if "," in given else range(int(given))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=("run", "collect", "report"))
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/tradeoff"))
    parser.add_argument("--size", choices=tuple(SIZES), default="full", help="how much of it")
    parser.add_argument("--quick", action="store_true", help="one short round, one seed: does it run?")
    parser.add_argument("--seeds", type=_parse_seeds, help="how many (5), or which: 2,3; reported: all")
    parser.add_argument("--methods", default=",".join(DEFAULT_METHODS), help=f"of {', '.join(METHODS)}")
    parser.add_argument(
        "--cache", type=Path, default=Path("runs/benchmarks/decision"), help="of the cold start"
    )
    # The locked-in start was made with calls alone: it consults and then never answers, so it earns nothing.
    parser.add_argument(
        "--start", choices=("mild", "whole", "habitual", "locked-in-whole"), default="habitual"
    )
    parser.add_argument("--base", type=Path, default=Path(".cache/models/smollm2-135m"))
    parser.add_argument("--json", action="store_true", help="the report's figures as JSON")
    given = parser.parse_args()
    size = "quick" if given.quick else given.size
    runs = given.out / f"{size}-{given.start}"
    methods = given.methods.split(",")
    if unknown := [method for method in methods if method not in METHODS]:
        print(f"tradeoff: there is no method '{unknown[0]}': there are {', '.join(METHODS)}", file=sys.stderr)
        return 1
    if given.command == "collect":
        rows = collect(runs, SIZES[size]["rounds"])
        if not rows:
            print(f"tradeoff: there are no runs in '{runs}': make some first", file=sys.stderr)
            return 1
        _save_results([{"size": size, "start": given.start, **row} for row in rows])
    if given.command in ("collect", "report"):
        rounds = (0, SIZES[size]["rounds"])
        rows = [row for row in _read_results() if (row["size"], row["start"]) == (size, given.start)]
        rows = [row for row in rows if row["rounds"] in rounds]
        rows = [row for row in rows if given.seeds is None or row["seed"] in given.seeds]
        if not rows:
            print(f"tradeoff: {RESULTS} keeps no runs of '{size}' from '{given.start}'", file=sys.stderr)
            return 1
        found = summarize(rows)
        print(json.dumps(found, indent=1) if given.json else format_tables(found))
        return 0
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from benchmarks.learning.decision.model.cold_start import cold_start

    model = cold_start(given.start, given.cache, given.base)
    run(runs, size, methods, [0] if given.quick else given.seeds or range(5), model, Services())
    return 0


if __name__ == "__main__":
    sys.exit(main())
