"""Runs the whole pipeline on a real model. Every step is an ordinary command that you can run yourself.

The demo serves the rules and a small language model, which decides when to consult them. It logs and scores
the model's episodes, trains the model on them with IFPO, and compares the trained model with the original.
All results are written to `runs/demo/`. You can interrupt the demo and start it again: finished steps are
skipped.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.rule import Rule

from evaluation.runtime import DIE_WITH_PARENT, ReadinessCheck, StartError, run_server

ROOT = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
RULES_PORT, MODEL_PORT = 8808, 8810
RULES = f"http://127.0.0.1:{RULES_PORT}"
MODEL = f"http://127.0.0.1:{MODEL_PORT}/v1"
BASE_MODEL = ".cache/models/smollm2-135m"  # kept by --fresh: a file format conversion, not a result
# At temperature 1 a model this small becomes incoherent. Training uses the temperature from the log.
# The demo starts the server itself, and samples in one way only: such a server keeps its first sampling.
SAMPLING = "--temperature 0.7 --max-tokens 48 --max-turns 3 --concurrency 16 --new-server"

console = Console(highlight=False)


class DemoError(Exception):
    """A step failed. The message is one sentence."""


@dataclass(frozen=True)
class Step:
    """One command of the demo."""

    name: str
    title: str
    command: str
    writes: tuple[str, ...] = ()
    """Files and folders that the command writes and can resume, inside the run's folder."""
    model: str = ""
    """Model that must be served meanwhile; empty for none."""
    rules: bool = False
    """Whether the rule service must run meanwhile."""


def steps(run: str) -> list[Step]:
    """Returns the steps in order. `run` is the run's folder, quoted for the shell."""
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
        ),
    ]


@contextlib.contextmanager
def service(name: str, command: str, port: int, health: str, log: Path) -> Iterator[None]:
    """Runs a server while the block runs.

    Raises:
        DemoError: the port is in use, or the server does not answer within three minutes.
    """
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise DemoError(
                f"port {port} on this machine is in use, and the {name} needs it: stop the other process"
            )
    console.print(
        f"[dim]starting the {name} on 127.0.0.1:{port} (its output: {display_path(log)})[/]", soft_wrap=True
    )
    try:
        with run_server(
            arguments(command), log, ReadinessCheck((health,), 180), name=f"the {name}", folder=ROOT
        ):
            yield
    except StartError as error:
        raise DemoError(str(error)) from None


def serve_rules(run: Path) -> contextlib.AbstractContextManager[None]:
    # One rule and the `answer` rule of its category: a model of this size cannot use more.
    command = f"ascl-rules serve --artefact {quoted(run)}/artefact --port {RULES_PORT} --default-top-k 1"
    return service("rule service", command, RULES_PORT, f"{RULES}/readyz", run / "logs" / "rules.log")


def dtype() -> str:
    """Returns bfloat16 for processors with bfloat16 arithmetic, where it is twice as fast; else float32."""
    with contextlib.suppress(OSError):
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
        if "amx_bf16" in flags or "avx512_bf16" in flags:
            return "bfloat16"
    return "float32"


def serve_model(model: str, run: Path) -> contextlib.AbstractContextManager[None]:
    # With small key-value cache blocks, all requests share the blocks of the system prompt.
    command = (
        f"transformers serve {model} --host 127.0.0.1 --port {MODEL_PORT} --device cpu --dtype {dtype()} "
        "--continuous-batching --cb-block-size 16 --cb-num-blocks 1024 --cb-max-batch-tokens 512"
    )
    health = f"http://127.0.0.1:{MODEL_PORT}/health"
    return service("model", command, MODEL_PORT, health, run / "logs" / "model.log")


def display_path(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def quoted(path: Path) -> str:
    return shlex.quote(display_path(path))


def arguments(command: str) -> list[str]:
    program, *rest = shlex.split(command)
    return [str(BIN / program), *rest]


def execute(step: Step) -> None:
    console.print(f"$ {step.command}", style="dim", soft_wrap=True, markup=False)
    # A step that outlived a killed demo would write to the same files as the step of the next demo.
    code = subprocess.run(
        arguments(step.command), cwd=ROOT, check=False, preexec_fn=DIE_WITH_PARENT
    ).returncode
    if code != 0:
        raise DemoError(f"the step '{step.name}' ended with code {code}; see its output above")


def remove_outputs(run: Path, step: Step) -> None:
    """Removes the outputs of a step after its command, or an earlier one, has changed."""
    for name in step.writes:
        target = run / name
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)


def run_steps(run: Path) -> None:
    """Runs the unfinished steps in order.

    The digest of a step covers its command and all commands before it. The file `STEP.begun` holds the digest
    of the outputs in the folder, `STEP.done` that of a finished step. An interrupted step is resumed; a step
    with another digest starts over.
    """
    demo_start, todo, digest = time.monotonic(), steps(quoted(run)), ""
    with contextlib.ExitStack() as rules_stack, contextlib.ExitStack() as model_stack:
        rules_up, serving = False, ""
        for number, step in enumerate(todo, 1):
            digest = hashlib.sha256(f"{digest}\n{step.command}".encode()).hexdigest()
            begin_marker, end_marker = (
                run / "steps" / f"{step.name}.{suffix}" for suffix in ("begun", "done")
            )
            begin_marker.parent.mkdir(parents=True, exist_ok=True)
            if step.name != "report" and read_marker(end_marker) == digest:
                continue
            console.print(Rule(f"{number}/{len(todo)}  {step.title}", align="left"))
            if read_marker(begin_marker) != digest:
                remove_outputs(run, step)
                begin_marker.write_text(digest, encoding="utf-8")
            if step.rules and not rules_up:
                rules_stack.enter_context(serve_rules(run))
                rules_up = True
            if serving != step.model:
                model_stack.close()
                serving = step.model
                if serving:
                    model_stack.enter_context(serve_model(serving, run))
            step_start = time.monotonic()
            execute(step)
            end_marker.write_text(digest, encoding="utf-8")
            console.print(f"done in {time.monotonic() - step_start:.0f} s", style="green")
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


def read_marker(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def may_erase(run: Path) -> bool:
    """Returns whether a folder is missing, empty, or the result of an earlier demo."""
    if not run.exists():
        return True
    return run.is_dir() and (not any(run.iterdir()) or any((run / "steps").glob("*.begun")))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "runs" / "demo", help="folder of the run (default: runs/demo)"
    )
    parser.add_argument(
        "--fresh", action="store_true", help="erase the results of an earlier demo and start over"
    )
    options = parser.parse_args()
    run: Path = options.out.resolve()
    if options.fresh:
        if not may_erase(run):
            parser.error(
                f"--fresh would erase {run}, which no demo created: pass another --out, or empty the folder"
            )
        shutil.rmtree(run, ignore_errors=True)
    run.mkdir(parents=True, exist_ok=True)
    try:
        run_steps(run)
    except DemoError as error:
        console.print(
            f"[red]demo:[/] {escape(str(error))}. Finished steps are kept: `make demo` resumes from here.",
            soft_wrap=True,
        )
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        console.print("\nInterrupted. Finished steps are kept: `make demo` resumes from here.")
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
