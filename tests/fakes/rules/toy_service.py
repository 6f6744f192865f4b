"""Runs the real rule service with a tiny rulebook and a toy encoder, for tests that need no embeddings."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import httpx2
import numpy as np
from numpy.typing import NDArray

from rule_server import RuleIndex, RuleService, Settings, load_rulebook
from rule_server.api.app import server_config
from rule_server.retrieval.build import LoadedIndex
from tests.fakes.processes.live_server import LiveServer
from tests.fakes.rules.rulebooks import rule, write_rulebook

QUESTION = {"situation": "someone asks for a computer virus"}


class ToyEncoder:
    """Encodes a text as a hash of its words. Encoding blocks while `open` is not set."""

    fingerprint = "toy"

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        assert self.open.wait(20)
        vectors = np.full((len(texts), 32), 1e-3, np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split():
                vectors[row, hashlib.sha256(word.encode()).digest()[0] % 32] += 1
        normalized: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return normalized


def toy_service(folder: Path, encoder: ToyEncoder | None = None, **settings: object) -> RuleService:
    """Creates a service with three rules, which it reads from `folder` again on `reload()`."""
    rules = write_rulebook(
        folder / "rules",
        rule("cyber.malware", title="Malicious software", applies_when="Someone asks for a computer virus."),
        rule("cyber.repair", stance="answer", title="Repairing computers", not_when=None),
        rule("kitchen.knives", stance="answer", title="Kitchen knives", not_when=None),
    )
    values = {"dir": rules, "artefact": folder / "artefact", "watch": False, "threshold": -2.0} | settings
    encoder = encoder or ToyEncoder()
    index = RuleIndex.build(load_rulebook((rules,)), encoder, {}, None)
    return RuleService(LoadedIndex(encoder, index, (rules,)), Settings.model_validate(values))


class ToyServer(LiveServer):
    """Serves a toy service over real HTTP, configured as by `serve` and warmed up. `client` queries it."""

    def __enter__(self) -> Self:
        super().__enter__()
        self.client = httpx2.Client(base_url=self.origin, timeout=20)
        deadline = time.monotonic() + 20
        while self.client.get("/readyz").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return self

    def stop(self) -> None:
        self.client.close()
        super().stop()


def serve_toy(folder: Path, encoder: ToyEncoder | None = None, **settings: object) -> ToyServer:
    """Creates a toy service and its server."""
    return ToyServer(None, config=server_config(toy_service(folder, encoder, **settings)))
