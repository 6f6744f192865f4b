"""Questions asked again, of one or several rulebooks, by the very code that serves."""

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
    from rule_server.retrieval.encoder import Vectors
    from rule_server.retrieval.index import RuleIndex
    from rule_server.settings import Settings

AT_ONCE = 32
QUIET = {"audit_file": None, "otlp_endpoint": None}
"""What is asked by the tools is no consultation."""


class CachingEncoder:
    """An encoder that embeds no text twice, as long as it is among the last that were asked for."""

    def __init__(self, encoder: Encoder, kept: int = 4096) -> None:
        self._encoder = encoder
        self._kept = kept
        self._vectors: OrderedDict[str, Vectors] = OrderedDict()

    @property
    def fingerprint(self) -> str:
        return self._encoder.fingerprint

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Vectors (len(texts), dimension)."""
        missing = sorted({text for text in texts if text not in self._vectors})
        if missing:
            self._vectors |= zip(missing, self._encoder.encode(missing), strict=True)
        found = np.stack([self._vectors[text] for text in texts])
        while len(self._vectors) > self._kept:
            self._vectors.popitem(last=False)
        return found


def replay(
    indexes: Sequence[RuleIndex],
    encoder: Encoder,
    settings: Settings,
    questions: Sequence[str],
    advance: Callable[[int], None] = lambda _: None,
) -> list[list[ConsultResponse]]:
    """What each index answers to each question: (indexes, questions); `advance` is told how many are done."""
    quiet = settings.model_copy(update={"watch": False, "cache_size": 0} | QUIET)
    shared = CachingEncoder(encoder)

    async def ask() -> list[list[ConsultResponse]]:
        answers: list[list[ConsultResponse]] = [[] for _ in indexes]
        async with AsyncExitStack() as stack:
            services = [RuleService(LoadedIndex(shared, index, ()), quiet) for index in indexes]
            for service in services:
                await stack.enter_async_context(service.running())
                await service.warm()
            for start in range(0, len(questions), AT_ONCE):
                requests = [ConsultRequest(situation=text) for text in questions[start : start + AT_ONCE]]
                for service, answered in zip(services, answers, strict=True):
                    answered += await asyncio.gather(*map(service.consult, requests))
                advance(len(requests))
        return answers

    return asyncio.run(ask())
