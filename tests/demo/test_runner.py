"""The demos: which steps run again, and which error messages a user reads."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from demo import full, runner
from demo.runner import DemoError, Runner, ServerSet, Step
from tests.fakes.processes.orphans import dies_with_parent
from tests.fakes.processes.ports import free_port

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of three steps. Each step appends a word to `trace` and to its own file."""
    monkeypatch.setattr(runner, "ROOT", tmp_path)
    monkeypatch.setattr(runner, "arguments", lambda command: ["sh", "-c", command])
    folder = tmp_path / "run"
    folder.mkdir()
    set_steps(monkeypatch, folder, "one", "two", "report")
    return folder


def set_steps(monkeypatch: pytest.MonkeyPatch, folder: Path, *commands: str) -> None:
    names = ("one", "two", "report")
    steps = [
        Step(
            name,
            f"Do {name}",
            f"echo {word} >> {folder}/trace && echo {word} >> {folder}/{name}.txt",
            (f"{name}.txt",),
            each_time=name == "report",
        )
        for name, word in zip(names, commands, strict=True)
    ]
    monkeypatch.setattr(full, "steps", lambda _: steps)


def trace(folder: Path) -> list[str]:
    return (folder / "trace").read_text(encoding="utf-8").split()


def test_finished_steps_are_skipped_but_the_report_is_written_each_time(run: Path) -> None:
    full.run_steps(run)
    full.run_steps(run)
    assert trace(run) == ["one", "two", "report", "report"]


def test_a_changed_command_and_all_later_ones_run_again(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full.run_steps(run)
    set_steps(monkeypatch, run, "one", "other", "report")
    full.run_steps(run)
    assert trace(run) == ["one", "two", "report", "other", "report"]
    assert (run / "two.txt").read_text(encoding="utf-8") == "other\n"  # its earlier output was removed first


def test_an_interrupted_step_resumes_with_its_partial_output(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_steps(monkeypatch, run, "one", "half; exit 3", "report")
    monkeypatch.setattr(
        full,
        "steps",
        lambda _: [Step("two", "Do two", f"echo part >> {run}/two.txt; test -e {run}/ready", ("two.txt",))],
    )
    with pytest.raises(DemoError, match="the step 'two' ended with code 1"):
        full.run_steps(run)
    (run / "ready").touch()
    full.run_steps(run)
    assert (run / "two.txt").read_text(encoding="utf-8") == "part\npart\n"


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(DemoError, match="is in use, and the rule service needs it"),
        runner.service(
            "rule service", "true", taken.getsockname()[1], "http://127.0.0.1:9", tmp_path / "log"
        ),
    ):
        pass


def test_a_service_that_exits_immediately_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "arguments", lambda command: [command])
    port = free_port()
    with (
        pytest.raises(DemoError, match=r"the rule service ended while it started; the last line of .*log is"),
        runner.service("rule service", "false", port, "http://127.0.0.1:9", tmp_path / "log"),
    ):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux notifies a child when its parent is killed")
def test_killing_the_demo_ends_its_step(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    code = (
        "from pathlib import Path\n"
        "from demo import runner\n"
        "runner.arguments = lambda command: ['sh', '-c', command]\n"
        f"step = runner.Step('one', 'Do one', 'echo $$ > {pid} && exec sleep 120')\n"
        f"run = Path({str(tmp_path)!r})\n"
        "runner.Runner(run, 1, runner.ServerSet(run)).run_steps([step])\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    assert dies_with_parent(owner, pid)


@pytest.mark.parametrize("holds", ["precious.txt", "steps/precious.txt"])
def test_a_folder_that_no_demo_created_is_not_erased(
    holds: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / holds).parent.mkdir(exist_ok=True)
    (tmp_path / holds).touch()
    monkeypatch.setattr("sys.argv", ["demo.py", "--fresh", "--out", str(tmp_path)])
    with pytest.raises(SystemExit):
        full.main()
    assert f"--fresh would erase {tmp_path}, which no demo created" in capsys.readouterr().err
    assert (tmp_path / holds).exists()


def test_fresh_starts_over_in_an_earlier_demo_and_in_an_empty_folder(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["demo.py", "--fresh", "--out", str(run)])
    full.main()
    full.main()
    assert trace(run) == ["one", "two", "report"]


def test_every_step_is_an_ordinary_command_that_writes_to_the_run_folder() -> None:
    steps = full.steps("runs/demo-full")
    assert len({step.name for step in steps}) == len(steps)
    for step in steps:
        assert step.command.startswith(("ascl-rules", "ascl-agent", "ascl-eval", "ascl-train", "python -m"))
        assert "runs/demo-full" in step.command or step.name == "model"


def lane_step(folder: Path, name: str, command: str, **options: Any) -> Step:
    return Step(name, f"Do {name}", f"echo {name} >> {folder}/trace; {command}", **options)


def play(run: Path, *lanes: list[Step]) -> None:
    Runner(run, 9, ServerSet(run)).run_lanes(lanes)


def test_lanes_run_at_the_same_time_and_the_steps_of_a_lane_in_order(run: Path) -> None:
    waits = f"until test -e {run}/met; do sleep 0.05; done"
    meets = lane_step(run, "b", f"touch {run}/met")
    play(run, [lane_step(run, "a", waits), lane_step(run, "c", "true")], [meets])
    assert sorted(trace(run)[:2]) == ["a", "b"]
    assert trace(run)[2:] == ["c"]


def test_a_failed_lane_stops_the_other_and_only_the_unfinished_steps_run_again(run: Path) -> None:
    fails = lane_step(run, "a", f"test -e {run}/ready")
    done, long = lane_step(run, "b", "true"), lane_step(run, "c", f"test -e {run}/ready || exec sleep 120")
    with pytest.raises(DemoError, match="the step 'a' ended with code 1"):
        play(run, [done, fails], [long])
    (run / "ready").touch()
    (run / "trace").unlink()
    play(run, [done, fails], [long])
    assert sorted(trace(run)) == ["a", "c"]


def test_a_changed_input_file_runs_its_step_again(run: Path) -> None:
    prompts = run / "prompts.jsonl"
    for text in ("first", "first", "second"):
        prompts.write_text(text, encoding="utf-8")
        play(run, [lane_step(run, "a", "true", inputs=(prompts,)), lane_step(run, "b", "true")])
    assert trace(run) == ["a", "b", "a", "b"]


def test_the_output_of_a_quiet_step_is_in_its_log(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DemoError, match=r"ended with code 3; see run/logs/a\.log"):
        play(run, [lane_step(run, "a", "echo noise; exit 3", quiet=True)])
    assert "noise" in (run / "logs" / "a.log").read_text(encoding="utf-8")
    assert "\nnoise" not in capfd.readouterr().out


def test_the_last_output_of_a_service_is_printed_verbatim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(run: Path) -> None:
        raise DemoError("the model ended while it started: cannot read [/models/x] [bold]")

    monkeypatch.setattr(full, "run_steps", fails)
    monkeypatch.setattr("sys.argv", ["demo.py", "--out", str(tmp_path / "run")])
    with pytest.raises(SystemExit):
        full.main()
    assert "cannot read [/models/x] [bold]" in capsys.readouterr().out


def test_the_demo_samples_in_one_way_from_servers_that_it_starts() -> None:
    commands = [step.command for step in full.steps("run") if step.command.startswith("ascl-agent run ")]
    assert commands
    assert all(f" {full.SAMPLING} " in command for command in commands)
    assert "--new-server" in full.SAMPLING
