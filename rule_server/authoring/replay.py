"""Replays questions against one or several rulebooks with the code of the service."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import numpy as np

from rule_server.retrieval.build import LoadedIndex
from rule_server.schemas import ConsultRequest, ConsultResponse
from rule_server.service.rule_service import RuleService

if TYPE_CHECKING:
    from rule_server.retrieval import Encoder
    from rule_server.retrieval.encoders.protocol import Vectors
    from rule_server.retrieval.index import RuleIndex
    from rule_server.settings import Settings

BATCH_SIZE = 32
WITHOUT_RECORDS = {"audit_file": None, "otlp_endpoint": None}
"""Settings that turn off audit log and traces: a replayed question is not a consultation."""


class CachingEncoder:
    """An encoder with a cache of the most recent texts."""

    def __init__(self, encoder: Encoder, capacity: int = 4096) -> None:
        self._encoder = encoder
        self._capacity = capacity
        self._vectors: OrderedDict[str, Vectors] = OrderedDict()

    @property
    def fingerprint(self) -> str:
        return self._encoder.fingerprint

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Returns vectors (len(texts), dimension)."""
        missing = sorted({text for text in texts if text not in self._vectors})
        if missing:
            self._vectors |= zip(missing, self._encoder.encode(missing), strict=True)
        vectors = np.stack([self._vectors[text] for text in texts])
        while len(self._vectors) > self._capacity:
            self._vectors.popitem(last=False)
        return vectors


def replay(
    indexes: Sequence[RuleIndex],
    encoder: Encoder,
    settings: Settings,
    questions: Sequence[str],
    advance: Callable[[int], None] = lambda _: None,
) -> list[list[ConsultResponse]]:
    """Returns the responses of each index to each question: (indexes, questions).

    `advance` receives the number of questions after each batch.
    """
    replay_settings = settings.model_copy(update={"watch": False, "cache_size": 0} | WITHOUT_RECORDS)
    shared = CachingEncoder(encoder)

    async def run() -> list[list[ConsultResponse]]:
        responses: list[list[ConsultResponse]] = [[] for _ in indexes]
        async with AsyncExitStack() as stack:
            services = [RuleService(LoadedIndex(shared, index, ()), replay_settings) for index in indexes]
            for service in services:
                await stack.enter_async_context(service.running())
                await service.warm()
            for start in range(0, len(questions), BATCH_SIZE):
                requests = [ConsultRequest(situation=text) for text in questions[start : start + BATCH_SIZE]]
                for service, own in zip(services, responses, strict=True):
                    own += await asyncio.gather(*map(service.consult, requests))
                advance(len(requests))
        return responses

    return asyncio.run(run())
