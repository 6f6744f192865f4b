"""Runs the whole pipeline on a real model. Every step is an ordinary command that you can run yourself.

The demo serves the rules and a small language model, which decides when to consult them. It logs and scores
the model's episodes, trains the model on them with IFPO, and compares the trained model with the original.
All results are written to `runs/demo-full/`. You can interrupt the demo and start it again: finished steps
are skipped.
"""

from __future__ import annotations

import time
from pathlib import Path

from rich.rule import Rule

from demo.runner import (
    BASE_MODEL,
    BIN,
    EDITED_RULE,
    MODEL,
    MODEL_PORT,
    RULES,
    Runner,
    ServerSet,
    Step,
    console,
    display_path,
    dtype,
    new_parser,
    quoted,
    run_demo,
)

# With small key-value cache blocks, all requests share the blocks of the system prompt.
BATCHING = "--continuous-batching --cb-block-size 16 --cb-num-blocks 1024 --cb-max-batch-tokens 512"
# At temperature 1 a model this small becomes incoherent. Training uses the temperature from the log.
# The demo starts the server itself, and samples in one way only: such a server keeps its first sampling.
SAMPLING = "--temperature 0.7 --max-tokens 48 --max-turns 3 --concurrency 16 --new-server"
# Rank 12 on 16 layers, so that the adapter has at most 4 MB.
PAIRS = "--steps 70 --kept 2 --lora-rank 12"


def steps(run: str) -> list[Step]:
    """Returns all steps in order. `run` is the run's folder, quoted for the shell."""
    return [*loop_steps(run), *adapter_steps(run)]


def loop_steps(run: str) -> list[Step]:
    """Returns the steps of the loop, up to its report.

    Long because it lists every command of the loop.
    """
    cold, ifpo = f"{run}/cold-start/merged", f"{run}/ifpo/merged"
    # Processors that compute in float32 sample less than half as fast, so they measure fewer episodes.
    measured = 2 if dtype() == "bfloat16" else 1

    def sample(name: str, title: str, prompts: str, samples: int, policy: str, model: str) -> Step:
        command = (
            f"ascl-agent run --prompts evaluation/prompts/{prompts}.jsonl --samples {samples} {SAMPLING} "
            f"--trace --log {run}/{name}.jsonl --policy-version {policy} --base-url {MODEL} --model {model} "
            f"--rules {RULES}/mcp"
        )
        return Step(name, title, command, (f"{name}.jsonl", f"{name}.jsonl.journal"), model, rules=True)

    def score(name: str) -> Step:
        command = f"ascl-eval score {run}/{name}.jsonl --out {run}/{name}-rewards.jsonl --overwrite"
        return Step(f"score-{name}", "Score the outcomes (consulting itself earns no reward)", command)

    def arm(name: str) -> str:
        return f"--arm {name}={run}/{name}.jsonl:{run}/{name}-rewards.jsonl"

    return [
        Step("index", "Build the rule index", f"ascl-rules build --artefact {run}/artefact"),
        Step(
            "model", "Convert the model SmolLM2-135M-Instruct", f"ascl-train local-model --dir {BASE_MODEL}"
        ),
        Step(
            "cold-start",
            "Cold start: learn to consult the rules from demonstrations",
            f"ascl-train sft --model {BASE_MODEL} --epochs 1.5 --out {run}/cold-start --overwrite",
            ("cold-start",),
        ),
        sample("episodes", "Sample episodes for training", "train", 3, "cold-start", cold),
        sample(
            "before", "Measure on held-out prompts, before training", "held_out", measured, "cold-start", cold
        ),
        score("episodes"),
        score("before"),
        Step(
            "groups",
            "Group the episodes and compute advantages",
            f"ascl-train prepare {run}/episodes.jsonl {run}/episodes-rewards.jsonl "
            f"--out {run}/groups.parquet --overwrite",
        ),
        Step(
            "ifpo",
            "Train with IFPO",
            f"ascl-train logged --config trainer/recipes/demo.yaml --model {cold} "
            f"--groups {run}/groups.parquet --out {run}/ifpo --overwrite",
            ("ifpo",),
        ),
        sample("after", "Measure on held-out prompts, after training", "held_out", measured, "ifpo", ifpo),
        score("after"),
        Step(
            "report",
            "Write the report",
            f"ascl-eval report {arm('before')} {arm('after')} --out {run} --overwrite",
            each_time=True,
        ),
    ]


def adapter_steps(run: str) -> list[Step]:
    """Returns the steps that make the packaged adapters again, from the cold start of the loop.

    The rule that `make demo` edits is left out of the edited rules, so that no edit of it is trained on.
    """
    decision = f"{run}/decision"

    def pack(name: str, merged: str) -> Step:
        command = (
            f"python -m trainer.models.packaged_adapters --name {name} --base {BASE_MODEL} "
            f"--merged {merged} --out {run}/adapters"
        )
        return Step(f"pack-{name}", f"Pack the adapter '{name}', to compare with the packaged one", command)

    return [
        Step(
            "edited-rules",
            "Record demonstrations under edited rules",
            f"python -m trainer.stages.sft.demonstrations.edited_rules --rules {RULES}/mcp "
            f"--hold-out {EDITED_RULE} --out {run}/edited-rules.jsonl",
            rules=True,
        ),
        Step(
            "follows-rules",
            "Learn to follow the rule that was read, from pairs of opposite rules",
            f"python -m trainer.stages.sft.pairs --model {run}/cold-start/merged {PAIRS} "
            f"--demonstrations {run}/edited-rules.jsonl --out {run}/follows-rules",
            ("follows-rules",),
        ),
        pack("cold-start", f"{run}/follows-rules"),
        Step(
            "locked-in",
            "Learn to consult about everything, the start of act 3 of `make demo`",
            "python -m benchmarks.learning.decision.model.cold_start --start locked-in "
            f"--cache {decision} --base {BASE_MODEL}",
            ("decision",),
        ),
        pack("locked-in", f"{decision}/cold-start-locked-in/merged"),
    ]


def run_steps(run: Path) -> None:
    """Runs the unfinished steps in order.

    Raises:
        DemoError: a step failed.
    """
    demo_start, todo = time.monotonic(), steps(quoted(run))
    with ServerSet(run, BATCHING) as servers:
        Runner(run, len(todo), servers).run_steps(todo)
    merged = quoted(run / "ifpo" / "merged")
    console.print(Rule(align="left"))
    seconds = time.monotonic() - demo_start
    console.print(f"Finished after {seconds:.0f} s. Report: {display_path(run / 'report.html')}")
    console.print("To chat with the trained model, run each line in its own terminal:")
    for line in (
        f"ascl-rules serve --artefact {quoted(run)}/artefact --default-top-k 1",
        f"transformers serve {merged} --port {MODEL_PORT} --device cpu --dtype {dtype()}",
        f"ascl-agent chat --base-url {MODEL} --model {merged}",
    ):
        console.print(f"  {display_path(BIN)}/{line}", soft_wrap=True, markup=False)


def main() -> None:
    parser = new_parser(__doc__, "demo-full")
    run_demo(parser, parser.parse_args(), "demo-full", run_steps)


if __name__ == "__main__":
    main()
