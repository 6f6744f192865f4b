"""The demo's own part: which steps are done again, and what a person reads when one cannot be done."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

import demo
from demo import DemoError, Step
from tests.fakes.processes.orphans import dies_with_parent


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of three steps, each of which appends a word to `trace` and to a file of its own."""
    monkeypatch.setattr(demo, "ROOT", tmp_path)
    monkeypatch.setattr(demo, "arguments", lambda command: ["sh", "-c", command])
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
        )
        for name, word in zip(names, commands, strict=True)
    ]
    monkeypatch.setattr(demo, "steps", lambda _: steps)


def trace(folder: Path) -> list[str]:
    return (folder / "trace").read_text(encoding="utf-8").split()


def test_what_is_done_is_not_done_again_but_the_report_is_shown_each_time(run: Path) -> None:
    demo.play(run)
    demo.play(run)
    assert trace(run) == ["one", "two", "report", "report"]


def test_a_changed_command_is_done_again_with_all_that_follows(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo.play(run)
    set_steps(monkeypatch, run, "one", "other", "report")
    demo.play(run)
    assert trace(run) == ["one", "two", "report", "other", "report"]
    assert (run / "two.txt").read_text(
        encoding="utf-8"
    ) == "other\n"  # what it wrote before was removed first


def test_a_step_that_was_interrupted_goes_on_with_what_it_had_written(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_steps(monkeypatch, run, "one", "half; exit 3", "report")
    monkeypatch.setattr(
        demo,
        "steps",
        lambda _: [Step("two", "Do two", f"echo part >> {run}/two.txt; test -e {run}/ready", ("two.txt",))],
    )
    with pytest.raises(DemoError, match="the step 'two' ended with code 1"):
        demo.play(run)
    (run / "ready").touch()
    demo.play(run)
    assert (run / "two.txt").read_text(encoding="utf-8") == "part\npart\n"


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(DemoError, match="is in use, and the rule service needs it"),
        demo.service("rule service", "true", taken.getsockname()[1], "http://127.0.0.1:9", tmp_path / "log"),
    ):
        pass


def test_a_service_that_ends_at_once_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "arguments", lambda command: [command])
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with (
        pytest.raises(DemoError, match=r"the rule service ended while it started; the last line of .*log is"),
        demo.service("rule service", "false", port, "http://127.0.0.1:9", tmp_path / "log"),
    ):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent was killed")
def test_the_step_of_a_killed_demo_ends_with_it(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    code = (
        "import demo\n"
        "demo.arguments = lambda command: ['sh', '-c', command]\n"
        f"demo.execute(demo.Step('one', 'Do one', 'echo $$ > {pid} && exec sleep 120'))\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", code], cwd=Path(demo.__file__).parent)
    assert dies_with_parent(owner, pid)


@pytest.mark.parametrize("holds", ["precious.txt", "steps/precious.txt"])
def test_a_folder_that_no_demo_made_is_not_erased(
    holds: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / holds).parent.mkdir(exist_ok=True)
    (tmp_path / holds).touch()
    monkeypatch.setattr("sys.argv", ["demo.py", "--fresh", "--out", str(tmp_path)])
    with pytest.raises(SystemExit):
        demo.main()
    assert f"--fresh would erase {tmp_path}, which no demo made" in capsys.readouterr().err
    assert (tmp_path / holds).exists()


def test_an_earlier_demo_and_an_empty_folder_are_started_over(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["demo.py", "--fresh", "--out", str(run)])
    demo.main()
    demo.main()
    assert trace(run) == ["one", "two", "report"]


def test_every_step_is_a_command_of_ours_and_writes_into_the_run() -> None:
    steps = demo.steps("runs/demo")
    assert len({step.name for step in steps}) == len(steps)
    for step in steps:
        assert demo.arguments(step.command)[0].endswith(
            ("ascl-rules", "ascl-agent", "ascl-eval", "ascl-train")
        )
        assert "runs/demo" in step.command or step.name == "model"


def test_what_a_service_printed_last_is_shown_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(run: Path) -> None:
        raise DemoError("the model ended while it started: cannot read [/models/x] [bold]")

    monkeypatch.setattr(demo, "play", fails)
    monkeypatch.setattr("sys.argv", ["demo.py", "--out", str(tmp_path / "run")])
    with pytest.raises(SystemExit):
        demo.main()
    assert "cannot read [/models/x] [bold]" in capsys.readouterr().out
