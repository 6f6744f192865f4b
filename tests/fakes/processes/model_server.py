"""Runs a real model server in a separate process.

with model_server(command, port, log) as base_url:
    ... base_url ends in /v1 ...
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

START_SECONDS = 300.0


def transformers_serve(model: Path, port: int, *options: str) -> list[str]:
    """Returns the command that serves a model folder with `transformers serve` on the CPU."""
    command = [str(Path(sys.executable).parent / "transformers"), "serve", str(model), "--device", "cpu"]
    return [*command, "--host", "127.0.0.1", "--port", str(port), *options]


@contextmanager
def model_server(command: list[str], port: int, log: Path) -> Iterator[str]:
    """Starts the command, writes its output to `log`, and yields the base URL once `/health` returns 200."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env={**os.environ, "HF_HUB_OFFLINE": "1"}
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _is_healthy(port):
            output_so_far = log.read_text(encoding="utf-8", errors="replace")[-2000:]
            assert process.poll() is None, output_so_far
            assert time.monotonic() < deadline, output_so_far
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(30)


def _is_healthy(port: int) -> bool:
    try:
        return bool(httpx2.get(f"http://127.0.0.1:{port}/health", timeout=2).status_code == 200)
    except httpx2.TransportError:
        return False
