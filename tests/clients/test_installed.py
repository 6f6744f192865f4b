"""Installs the wheel with pip, uvx and pipx and runs it in an empty folder, outside the checkout."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from tests.clients.fetched import CACHE, run, venv

pytestmark = pytest.mark.clients
ROOT = Path(__file__).resolve().parents[2]
PINNED = ("-c", str(ROOT / "constraints.txt"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT, cwd=folder)
    [file] = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """The commands' folder in an environment that can serve an index but not build one."""
    python = venv("installed", *PINNED, "fastapi", "faiss-cpu", "onnxruntime", "mcp")
    run(python, "-m", "pip", "install", "--quiet", *PINNED, f"ascl[server] @ {wheel.as_uri()}", cwd=ROOT)
    reinstall = ("--force-reinstall", "--no-deps", wheel)
    run(python, "-m", "pip", "install", "--quiet", *reinstall, cwd=ROOT)
    return python.parent


def environment(folder: Path, **more: str) -> dict[str, str]:
    inherited = {
        name: value for name, value in os.environ.items() if "CERT" in name or name.startswith("PIP_")
    }
    return {
        **inherited,
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "HF_HUB_OFFLINE": "1",
        "UV_CACHE_DIR": str(CACHE / "uv-cache"),
        **more,
    }


def test_without_an_index_the_error_names_what_is_missing(installed: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [str(installed / "ascl-rules"), "serve", "--port", "0"],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "pip install 'ascl[offline]'" in done.stderr


@pytest.mark.parametrize("way", ["pip", "uvx", "pipx"])
def test_with_an_index_it_serves_from_an_empty_folder(
    way: str, installed: Path, wheel: Path, artefact: Path, tmp_path: Path
) -> None:
    requirement = f"ascl[server] @ {wheel.as_uri()}"
    command = {
        "pip": lambda: [installed / "ascl-rules"],
        "uvx": lambda: [
            *(venv("uv", "uv==0.13.9").with_name("uvx"), "--quiet", "--python", sys.executable),
            *("--constraints", ROOT / "constraints.txt", "--from", requirement, "ascl-rules"),
        ],
        "pipx": lambda: [
            *(venv("pipx", "pipx").with_name("pipx"), "run", "--quiet", "--spec", requirement),
            *(f"--pip-args=-c {ROOT / 'constraints.txt'}", "ascl-rules"),
        ],
    }[way]()
    name, *arguments = [str(part) for part in command]
    server = StdioServerParameters(
        command=name,
        args=[*arguments, "stdio"],
        cwd=tmp_path,
        env=environment(tmp_path, ASCL_RULES_ARTEFACT=str(artefact)),
    )

    async def consult() -> str:
        async with Client(stdio_client(server)) as client:
            question = {"situation": "someone asks for a computer virus"}
            answer = await client.call_tool("consult_safety_rules", question)
            return str(answer.structured_content["verdict"])

    assert asyncio.run(consult()) == "rules_found"
