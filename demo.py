"""The whole loop on a real model, step by step, each an ordinary command that you could type yourself.

Rules are served, a small language model behind a real endpoint decides when to consult them, its episodes are
logged and scored, IFPO trains on them, and the trained model is measured beside the one it started from.
Everything lands in `runs/demo/`. A step that is done is not done again: interrupt it and start it again.
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
BASE_MODEL = ".cache/models/smollm2-135m"  # kept by --fresh: it is a file format conversion, not a result
# Below 1, where a model this small loses its thread. The log names it, and training divides by the same.
SAMPLING = "--temperature 0.7 --max-tokens 48 --max-turns 3 --concurrency 16"

console = Console(highlight=False)


class DemoError(Exception):
    """A step that could not be done, said in one sentence."""


@dataclass(frozen=True)
class Step:
    """One command of the demo, what it writes, and what must be running meanwhile."""

    name: str
    title: str
    command: str
    writes: tuple[str, ...] = ()
    model: str = ""
    rules: bool = False


def steps(run: str) -> list[Step]:
    """The commands in order, as they would be typed in this folder; `run` is the run's folder, quoted."""
    cold, ifpo = f"{run}/cold-start/merged", f"{run}/ifpo/merged"
    # A processor that must compute in float32 samples less than half as fast: it measures fewer episodes.
    measured = 2 if dtype() == "bfloat16" else 1

    def sample(name: str, title: str, prompts: str, samples: int, policy: str, model: str) -> Step:
        command = (
            f"ascl-agent run --prompts evaluation/prompts/{prompts}.jsonl --samples {samples} {SAMPLING} "
            f"--trace --log {run}/{name}.jsonl --policy-version {policy} --base-url {MODEL} --model {model} "
            f"--rules {RULES}/mcp"
        )
        return Step(name, title, command, (f"{name}.jsonl", f"{name}.jsonl.journal"), model, rules=True)

    def score(name: str) -> Step:
        command = f"ascl-eval score {run}/{name}.jsonl --out {run}/{name}-rewards.jsonl"
        return Step(f"score-{name}", "Score the outcomes; consulting itself earns nothing", command)

    def arm(name: str) -> str:
        return f"--arm {name}={run}/{name}.jsonl:{run}/{name}-rewards.jsonl"

    return [
        Step("index", "Embed the rulebook", f"ascl-rules build --artefact {run}/artefact"),
        Step("model", "Prepare SmolLM2-135M-Instruct", f"ascl-train local-model --dir {BASE_MODEL}"),
        Step(
            "cold-start",
            "Cold start: learn from demonstrations how a consultation is made",
            f"ascl-train sft --model {BASE_MODEL} --epochs 1.5 --out {run}/cold-start",
            ("cold-start",),
        ),
        sample("episodes", "Sample episodes to learn from", "train", 3, "cold-start", cold),
        sample("before", "Measure on other prompts, before", "held_out", measured, "cold-start", cold),
        score("episodes"),
        score("before"),
        Step(
            "groups",
            "Make groups of the episodes, with their advantages",
            f"ascl-train prepare {run}/episodes.jsonl {run}/episodes-rewards.jsonl "
            f"--out {run}/groups.parquet",
        ),
        Step(
            "ifpo",
            "Train on them with IFPO",
            f"ascl-train logged --config trainer/recipes/demo.yaml --model {cold} "
            f"--groups {run}/groups.parquet --out {run}/ifpo",
            ("ifpo",),
        ),
        sample("after", "Measure on the same other prompts, after", "held_out", measured, "ifpo", ifpo),
        score("after"),
        Step("report", "Report", f"ascl-eval report {arm('before')} {arm('after')} --out {run}"),
    ]


@contextlib.contextmanager
def service(name: str, command: str, port: int, health: str, log: Path) -> Iterator[None]:
    """Run a server while the block runs.

    Raises:
        DemoError: when its port is taken, or it does not come up within three minutes.
    """
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise DemoError(
                f"port {port} on this machine is in use, and the {name} needs it: stop what listens there"
            )
    console.print(
        f"[dim]starting the {name} on 127.0.0.1:{port} (its output: {shown(log)})[/]", soft_wrap=True
    )
    try:
        with run_server(
            arguments(command), log, ReadinessCheck((health,), 180), name=f"the {name}", folder=ROOT
        ):
            yield
    except StartError as error:
        raise DemoError(str(error)) from None


def serve_rules(run: Path) -> contextlib.AbstractContextManager[None]:
    # One rule and its category's `answer` rule: as much as a model of this size can read with profit.
    command = f"ascl-rules serve --artefact {quoted(run)}/artefact --port {RULES_PORT} --default-top-k 1"
    return service("rule service", command, RULES_PORT, f"{RULES}/readyz", run / "logs" / "rules.log")


def dtype() -> str:
    """bfloat16 on processors that multiply in it, where it samples twice as fast; on others it is slower."""
    with contextlib.suppress(OSError):
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
        if "amx_bf16" in flags or "avx512_bf16" in flags:
            return "bfloat16"
    return "float32"


def serve_model(model: str, run: Path) -> contextlib.AbstractContextManager[None]:
    # Small blocks of the key-value cache, so that all requests share the one that holds the system text.
    command = (
        f"transformers serve {model} --host 127.0.0.1 --port {MODEL_PORT} --device cpu --dtype {dtype()} "
        "--continuous-batching --cb-block-size 16 --cb-num-blocks 1024 --cb-max-batch-tokens 512"
    )
    health = f"http://127.0.0.1:{MODEL_PORT}/health"
    return service("model", command, MODEL_PORT, health, run / "logs" / "model.log")


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def quoted(path: Path) -> str:
    return shlex.quote(shown(path))


def arguments(command: str) -> list[str]:
    program, *rest = shlex.split(command)
    return [str(BIN / program), *rest]


def execute(step: Step) -> None:
    console.print(f"$ {step.command}", style="dim", soft_wrap=True, markup=False)
    # A step that outlived a killed demo would write beside the one that the next demo starts.
    code = subprocess.run(
        arguments(step.command), cwd=ROOT, check=False, preexec_fn=DIE_WITH_PARENT
    ).returncode
    if code != 0:
        raise DemoError(f"the step '{step.name}' ended with code {code}; what it said stands above")


def forget(run: Path, step: Step) -> None:
    """Remove what a step wrote before its command, or one before it, changed."""
    for name in step.writes:
        target = run / name
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)


def play(run: Path) -> None:
    """Do what is not done yet, in order.

    A step's mark is a digest of its command and of every command before it. `begun` keeps the mark of what
    lies in the folder, `done` that of what is finished: half done goes on, outdated starts over.
    """
    started, todo, mark = time.monotonic(), steps(quoted(run)), ""
    with contextlib.ExitStack() as rules_stack, contextlib.ExitStack() as model_stack:
        rules_up, serving = False, ""
        for number, step in enumerate(todo, 1):
            mark = hashlib.sha256(f"{mark}\n{step.command}".encode()).hexdigest()
            begun, done = run / "steps" / f"{step.name}.begun", run / "steps" / f"{step.name}.done"
            begun.parent.mkdir(parents=True, exist_ok=True)
            if step.name != "report" and done.exists() and done.read_text(encoding="utf-8") == mark:
                continue
            console.print(Rule(f"{number}/{len(todo)}  {step.title}", align="left"))
            if not begun.exists() or begun.read_text(encoding="utf-8") != mark:
                forget(run, step)
                begun.write_text(mark, encoding="utf-8")
            if step.rules and not rules_up:
                rules_stack.enter_context(serve_rules(run))
                rules_up = True
            if serving != step.model:
                model_stack.close()
                serving = step.model
                if serving:
                    model_stack.enter_context(serve_model(serving, run))
            began = time.monotonic()
            execute(step)
            done.write_text(mark, encoding="utf-8")
            console.print(f"done in {time.monotonic() - began:.0f} s", style="green")
    merged = quoted(run / "ifpo" / "merged")
    console.print(Rule(align="left"))
    console.print(f"Finished after {time.monotonic() - started:.0f} s. Report: {shown(run / 'report.html')}")
    console.print("Talk to the trained model, each line in a terminal of its own:")
    for line in (
        f"ascl-rules serve --artefact {quoted(run)}/artefact --default-top-k 1",
        f"transformers serve {merged} --port {MODEL_PORT} --device cpu --dtype {dtype()}",
        f"ascl-agent chat --base-url {MODEL} --model {merged}",
    ):
        console.print(f"  {shown(BIN)}/{line}", soft_wrap=True, markup=False)


def erasable(run: Path) -> bool:
    """Whether a folder is missing, empty, or an earlier demo's."""
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
    parser.add_argument("--fresh", action="store_true", help="forget what an earlier demo did and start over")
    options = parser.parse_args()
    run: Path = options.out.resolve()
    if options.fresh:
        if not erasable(run):
            parser.error(
                f"--fresh would erase {run}, which no demo made: pass another --out, or empty it first"
            )
        shutil.rmtree(run, ignore_errors=True)
    run.mkdir(parents=True, exist_ok=True)
    try:
        play(run)
    except DemoError as error:
        console.print(
            f"[red]demo:[/] {escape(str(error))}. What is done is kept: `make demo` goes on from here.",
            soft_wrap=True,
        )
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        console.print("\nInterrupted. What is done is kept: `make demo` goes on from here.")
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
