"""An audit log on a disk that hangs: consultations are refused, and other requests do not wait."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from tests.fakes.rules.toy_service import QUESTION, serve_toy


@pytest.fixture
def hanging_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A log whose writes block: a pipe that is full, since nobody reads it."""
    monkeypatch.setattr("rule_server.observability.audit.WRITE_TIMEOUT", 0.5, raising=False)
    pipe = tmp_path / "audit"
    os.mkfifo(pipe)
    (tmp_path / "audit.key").write_text("k" * 32)
    handle = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    try:
        while True:
            os.write(handle, b"x" * 512)
    except BlockingIOError:
        pass
    yield pipe
    with contextlib.suppress(BlockingIOError):
        while os.read(handle, 1 << 16):
            pass
    os.close(handle)


def test_a_disk_that_hangs_refuses_consultations_and_blocks_nothing_else(
    tmp_path: Path, hanging_disk: Path
) -> None:
    with serve_toy(tmp_path, audit_file=hanging_disk) as served, ThreadPoolExecutor() as pool:
        first = pool.submit(httpx2.post, f"{served.origin}/v1/consult", json=QUESTION, timeout=30)
        time.sleep(0.2)
        assert httpx2.get(f"{served.origin}/healthz", timeout=2).status_code == 200
        assert httpx2.get(f"{served.origin}/v1/rules", timeout=2).status_code == 200
        refused = first.result()
        assert refused.status_code == 503
        assert "within 0.5 s" in refused.json()["detail"]
        start = time.monotonic()
        answers = [served.client.post("/v1/consult", json=QUESTION).status_code for _ in range(20)]
        assert answers == [503] * 20
        assert time.monotonic() - start < 5
        assert "disk does not respond" in served.client.get("/readyz").json()["degraded"][0]


def test_consultations_are_logged_again_when_the_disk_responds(tmp_path: Path, hanging_disk: Path) -> None:
    with serve_toy(tmp_path, audit_file=hanging_disk) as served:
        assert served.client.post("/v1/consult", json=QUESTION).status_code == 503
        reader = os.open(hanging_disk, os.O_RDONLY | os.O_NONBLOCK)
        while b'"caller"' not in os.read(reader, 1 << 20):  # the line of the refused consultation
            time.sleep(0.01)
        assert served.client.post("/v1/consult", json=QUESTION).status_code == 200
        assert served.client.get("/readyz").json()["degraded"] == []
        assert json.loads(os.read(reader, 1 << 20))["verdict"]
        os.close(reader)
