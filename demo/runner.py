"""Runs the steps of a demo, with the servers they need, and skips the finished ones."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import resource
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.rule import Rule

from evaluation.runtime import DIE_WITH_PARENT, ReadinessCheck, StartError, run_server

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
RULES_PORT, MODEL_PORT = 8808, 8810
RULES = f"http://127.0.0.1:{RULES_PORT}"
MODEL = f"http://127.0.0.1:{MODEL_PORT}/v1"
BASE_MODEL = ".cache/models/smollm2-135m"  # kept by --fresh: a file format conversion, not a result
EDITED_RULE = "civic-information.elections-and-voting"
"""Rule that act 2 edits. The packaged adapter was never trained on an edit of it."""
POLL_SECONDS, TICK_SECONDS = 0.2, 2.0

console = Console(highlight=False)


class DemoError(Exception):
    """A step failed. The message is one sentence."""


@dataclass(frozen=True)
class Step:
    """One command of a demo."""

    name: str
    title: str
    command: str
    writes: tuple[str, ...] = ()
    """Files and folders that the command writes and can resume, inside the run's folder."""
    model: str = ""
    """Model that must be served while it runs; empty for none."""
    rules: bool = False
    """Whether the rule service must be up while it runs."""
    inputs: tuple[Path, ...] = ()
    """Files besides the command that determine the result; a change runs the step again."""
    quiet: bool = False
    """Whether the output goes to `logs/STEP.log` instead of the terminal."""
    each_time: bool = False
    """Whether the step also runs if it is finished."""


class ServerSet:
    """The servers of a run, started when a step first needs them.

    Args:
        run: folder of the run.
        model_options: further options of `transformers serve`.
    """

    def __init__(self, run: Path, model_options: str = "") -> None:
        self.run, self.model_options = run, model_options
        self._rules, self._model = contextlib.ExitStack(), contextlib.ExitStack()
        self._rules_up, self._serving = False, ""

    def __enter__(self) -> ServerSet:
        return self

    def __exit__(self, *_: object) -> None:
        self._model.close()
        self._rules.close()

    def provide(self, step: Step) -> None:
        """Starts what the step needs and stops a model that it does not need.

        Raises:
            DemoError: see `service`.
        """
        if step.rules and not self._rules_up:
            self._rules.enter_context(serve_rules(self.run))
            self._rules_up = True
        if self._serving != step.model:
            self._model.close()
            self._serving = step.model
            if step.model:
                self._model.enter_context(serve_model(step.model, self.run, self.model_options))


@contextlib.contextmanager
def service(name: str, command: str, port: int, health: str, log: Path) -> Iterator[None]:
    """Runs a server while the block runs.

    Raises:
        DemoError: the port is in use, or the server does not answer within three minutes.
    """
    check_port(port, name)
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


def check_port(port: int, name: str) -> None:
    """Raises a DemoError if another process listens on the port."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise DemoError(
                f"port {port} on this machine is in use, and the {name} needs it: stop the other process"
            )


def serve_rules(run: Path) -> contextlib.AbstractContextManager[None]:
    """Serves the run's index. One rule per consultation: a model of this size cannot use more."""
    command = f"ascl-rules serve --artefact {quoted(run)}/artefact --port {RULES_PORT} --default-top-k 1"
    return service("rule service", command, RULES_PORT, f"{RULES}/readyz", run / "logs" / "rules.log")


def serve_model(model: str, run: Path, options: str = "") -> contextlib.AbstractContextManager[None]:
    """Serves a model folder with `transformers serve`."""
    command = (
        f"transformers serve {shlex.quote(model)} --host 127.0.0.1 --port {MODEL_PORT} --device cpu "
        f"--dtype {dtype()} {options}"
    )
    health = f"http://127.0.0.1:{MODEL_PORT}/health"
    return service("model", command, MODEL_PORT, health, run / "logs" / "model.log")


def dtype() -> str:
    """Returns bfloat16 for processors with bfloat16 arithmetic, where it is twice as fast; else float32."""
    with contextlib.suppress(OSError):
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
        if "amx_bf16" in flags or "avx512_bf16" in flags:
            return "bfloat16"
    return "float32"


def display_path(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def quoted(path: Path) -> str:
    return shlex.quote(display_path(path))


def arguments(command: str) -> list[str]:
    """Returns the words of a command; its program is beside the Python interpreter."""
    program, *rest = shlex.split(command)
    return [sys.executable if program == "python" else str(BIN / program), *rest]


def step_digests(lanes: Sequence[Sequence[Step]], before: str) -> list[list[str]]:
    """Returns a digest per step that covers its command, its inputs and all earlier commands."""
    digests = []
    for lane in lanes:
        digest, found = before, list[str]()
        for step in lane:
            content = hashlib.sha256(f"{digest}\n{step.command}".encode())
            for file in step.inputs:
                content.update(file.read_bytes() if file.is_file() else b"missing")
            digest = content.hexdigest()
            found.append(digest)
        digests.append(found)
    return digests


class Runner:
    """Runs steps in order and remembers which are finished.

    The digest of a step covers its command and all commands before it. The file `STEP.begun` holds the digest
    of the outputs in the folder, `STEP.done` that of a finished step. An interrupted step is resumed; a step
    with another digest starts over.

    Args:
        run: folder of the run.
        count: total number of steps, for the headings.
        servers: started when a step needs them.
    """

    def __init__(self, run: Path, count: int, servers: ServerSet) -> None:
        self.run, self.count, self.servers = run, count, servers
        self._number, self._digest = 0, ""

    def run_steps(self, steps: Sequence[Step]) -> None:
        """Runs the unfinished steps one after the other.

        Raises:
            DemoError: a step failed.
        """
        for step in steps:
            self.run_lanes([[step]])

    def run_lanes(self, lanes: Sequence[Sequence[Step]], on_tick: Callable[[], None] = lambda: None) -> None:
        """Runs lanes of steps at the same time, the steps of a lane one after the other.

        Args:
            on_tick: called every `TICK_SECONDS` meanwhile.

        Raises:
            DemoError: a step failed; the others are stopped.
        """
        digests = step_digests(lanes, self._digest)
        waiting = [list(zip(lane, found, strict=True)) for lane, found in zip(lanes, digests, strict=True)]
        running: dict[int, tuple[subprocess.Popen[bytes], Step, str, float]] = {}
        ticked = time.monotonic()
        try:
            while running or any(waiting):
                for index, lane in enumerate(waiting):
                    while lane and index not in running:
                        step, digest = lane.pop(0)
                        self._number += 1
                        if self.is_unfinished(step, digest):
                            running[index] = (self._start(step, digest), step, digest, time.monotonic())
                for index, (process, step, digest, started) in list(running.items()):
                    used_before = cpu_seconds()
                    if (code := process.poll()) is None:
                        continue
                    used = cpu_seconds() - used_before
                    del running[index]
                    if code != 0:
                        raise DemoError(self._failure(step, code))
                    self._marker(step, "done").write_text(digest, encoding="utf-8")
                    label = "" if len(lanes) == 1 else f"{step.title}: "
                    seconds = time.monotonic() - started
                    console.print(f"{label}done in {seconds:.0f} s ({used:.0f} s of CPU)", style="green")
                if time.monotonic() - ticked > TICK_SECONDS:
                    on_tick()
                    ticked = time.monotonic()
                if running:
                    time.sleep(POLL_SECONDS)
        finally:
            for process, *_ in running.values():
                process.terminate()
            for process, *_ in running.values():
                process.wait()
        self._digest = hashlib.sha256("".join(found[-1] for found in digests).encode()).hexdigest()

    def is_unfinished(self, step: Step, digest: str) -> bool:
        return step.each_time or read_marker(self._marker(step, "done")) != digest

    def is_marked_done(self, step: Step) -> bool:
        """Returns whether the step has ever finished in this folder, also with another command."""
        return self._marker(step, "done").exists()

    def _marker(self, step: Step, suffix: str) -> Path:
        return self.run / "steps" / f"{step.name}.{suffix}"

    def _start(self, step: Step, digest: str) -> subprocess.Popen[bytes]:
        console.print(Rule(f"{self._number}/{self.count}  {step.title}", align="left"))
        begin_marker = self._marker(step, "begun")
        begin_marker.parent.mkdir(parents=True, exist_ok=True)
        if read_marker(begin_marker) != digest:
            remove_outputs(self.run, step)
            begin_marker.write_text(digest, encoding="utf-8")
        self.servers.provide(step)
        return start(step, self.run)

    def _failure(self, step: Step, code: int) -> str:
        where = display_path(log_of(step, self.run)) if step.quiet else "its output above"
        return f"the step '{step.name}' ended with code {code}; see {where}"


def cpu_seconds() -> float:
    """Returns the CPU time of all processes that this one has started and that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def log_of(step: Step, run: Path) -> Path:
    return run / "logs" / f"{step.name}.log"


def start(step: Step, run: Path) -> subprocess.Popen[bytes]:
    """Starts the command of a step."""
    console.print(f"$ {step.command}", style="dim", soft_wrap=True, markup=False)
    # A step that outlived a killed demo would write to the same files as the step of the next demo.
    words = arguments(step.command)
    if not step.quiet:
        return subprocess.Popen(words, cwd=ROOT, preexec_fn=DIE_WITH_PARENT)
    log = log_of(step, run)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        return subprocess.Popen(
            words, cwd=ROOT, preexec_fn=DIE_WITH_PARENT, stdout=output, stderr=subprocess.STDOUT
        )


def remove_outputs(run: Path, step: Step) -> None:
    """Removes the outputs of a step after its command, or an earlier one, has changed."""
    for name in step.writes:
        target = run / name
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)


def read_marker(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def may_erase(run: Path) -> bool:
    """Returns whether a folder is missing, empty, or the result of an earlier demo."""
    if not run.exists():
        return True
    return run.is_dir() and (not any(run.iterdir()) or any((run / "steps").glob("*.begun")))


def new_parser(description: str | None, out: str) -> argparse.ArgumentParser:
    """Returns a parser with the options that both demos share."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "runs" / out, help=f"folder of the run (default: runs/{out})"
    )
    parser.add_argument(
        "--fresh", action="store_true", help="erase the results of an earlier demo and start over"
    )
    return parser


def run_demo(
    parser: argparse.ArgumentParser, options: argparse.Namespace, target: str, play: Callable[[Path], None]
) -> None:
    """Prepares the run's folder and plays the demo; prints a failure as one sentence and exits.

    Args:
        target: the demo's make target.
        play: receives the run's folder.
    """
    run: Path = options.out.resolve()
    if options.fresh:
        if not may_erase(run):
            parser.error(
                f"--fresh would erase {run}, which no demo created: pass another --out, or empty the folder"
            )
        shutil.rmtree(run, ignore_errors=True)
    run.mkdir(parents=True, exist_ok=True)
    resume = f"Finished steps are kept: `make {target}` resumes from here."
    try:
        play(run)
    except DemoError as error:
        console.print(f"[red]demo:[/] {escape(str(error))}. {resume}", soft_wrap=True)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        console.print(f"\nInterrupted. {resume}")
        raise SystemExit(130) from None
