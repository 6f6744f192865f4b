"""Answers consultations, independent of the protocol that they arrive by."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import numpy as np

from rule_server.errors import ConsultError, NotReadyError
from rule_server.observability import AuditLog, describe_response, start_tracing
from rule_server.observability.metrics import Metrics
from rule_server.retrieval import Threshold, split_into_windows
from rule_server.retrieval.artefact import Artefact
from rule_server.retrieval.build import LoadedIndex
from rule_server.retrieval.index import Hit, RuleIndex, threshold_for
from rule_server.rulebook import Rule, Rulebook
from rule_server.schemas import (
    DEFAULT_NEAREST,
    ConsultRequest,
    ConsultResponse,
    FoundRule,
    NearestResponse,
    NearRule,
    Reason,
    RulebookRef,
)
from rule_server.service.batching import Batcher
from rule_server.service.changes import Changes
from rule_server.service.reload import Reloader
from rule_server.service.snapshots import Snapshots
from rule_server.service.usage import UsageCounter
from rule_server.settings import Settings

if TYPE_CHECKING:
    from rule_server.retrieval.index import Floats

log = logging.getLogger(__name__)

AUDIT_ROTATION_SECONDS = 600


class RuleService:
    """Answers each request from one snapshot of the rulebook. A reload swaps the snapshot atomically."""

    def __init__(self, loaded: LoadedIndex, settings: Settings) -> None:
        self.settings = settings
        self.ready = False
        self.usage = UsageCounter()
        self.encoder_error: str | None = None
        """Reason why the encoder does not work."""
        self.precision = getattr(loaded.encoder, "precision", "exact")
        """Precision in which questions are encoded: `exact` or `int8`."""
        artefact = Artefact(settings.artefact)
        self.snapshots = Snapshots(loaded.index, artefact, settings.snapshots, loaded.rules)
        self.metrics = Metrics(loaded.index.rulebook, lambda: self._batcher.depth)
        self.audit = AuditLog(settings) if settings.audit_file is not None else None
        self.tracing = start_tracing(settings)
        self._reloader = Reloader(loaded.rules, settings, loaded.encoder, self.snapshots, self.metrics)
        self._batcher = Batcher(loaded.encoder, self.metrics.observe_stage)
        self._cache: OrderedDict[tuple[object, ...], ConsultResponse] = OrderedDict()

    @property
    def rulebook(self) -> Rulebook:
        """The rulebook of the current snapshot."""
        return self.snapshots.current.rulebook

    @property
    def changes(self) -> Changes:
        """Result of the last reload, and the reason if the newest edit was rejected."""
        return self._reloader.changes

    @property
    def reload_error(self) -> str | None:
        """Reason why the last edit is not served, the encoder fails or edits are not watched; else None."""
        rejected = self.changes.rejected
        return rejected.problem if rejected is not None else self.encoder_error or self._reloader.watch_error

    @property
    def degraded(self) -> list[str]:
        """Guarantees that do not hold at present, one sentence each. The service still answers."""
        problems = [self.audit.problem if self.audit is not None else None, self._reloader.storage_error]
        return [problem for problem in problems if problem is not None]

    @property
    def threshold(self) -> Threshold:
        """The current threshold and its origin."""
        return threshold_for(self.snapshots.current, self.settings.threshold)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Answers consultations while this block runs, once the encoder is warm (see `ready`)."""
        async with self._batcher.running():
            tasks: list[asyncio.Task[None] | asyncio.Task[bool]] = [asyncio.create_task(self.warm())]
            if self.settings.watch and self._reloader.folders:
                tasks.append(asyncio.create_task(self._reloader.watch()))
            if self.audit is not None:
                tasks.append(asyncio.create_task(self._rotate_audit(self.audit)))
            try:
                yield
            finally:
                self.ready = False
                tasks += self._reloader.tasks
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        if self.audit is not None:
            await self.audit.finish()
        if self.tracing is not None:
            await asyncio.to_thread(self.tracing.close)

    async def consult(self, request: ConsultRequest, *, digest: str | None = None) -> ConsultResponse:
        """Returns the rules that apply to a situation, from the current rulebook or an earlier one by digest.

        Raises:
            UnknownDigestError: that rulebook is no longer available.
            ConsultError: the rulebook lacks a requested category.
            NotReadyError: the encoder is not warm yet.
        """
        index = await self._snapshot(digest)
        if self.tracing is None:
            response = await self._answer(request, index)
        else:
            with self.tracing.consultation_span() as span:
                response = await self._answer(request, index)
                describe_response(span, len(request.situation), response)
        if self.audit is not None:
            await self.audit.record(request.situation, response)
        self.usage.add(response)
        self.metrics.count_consultation(response)
        return response

    async def _snapshot(self, digest: str | None) -> RuleIndex:
        """Returns the index that one request uses throughout, even if a reload swaps the snapshot."""
        if not self.ready:
            raise NotReadyError("the service is starting: ask again in a moment")
        return self.snapshots.current if digest is None else await self.snapshots.get(digest)

    async def _answer(self, request: ConsultRequest, index: RuleIndex) -> ConsultResponse:
        categories = _requested_categories(request, index)
        top_k = request.top_k or self.settings.default_top_k
        key = (index.rulebook.digest, request.situation, categories, top_k, request.lang)
        cached = self._cache.get(key)
        self.metrics.count_cache_lookup(cached is not None)
        if cached is not None:
            self._cache.move_to_end(key)
            return cached
        scores = await self._batcher.scores(split_into_windows(request.situation), index)
        start = time.perf_counter()
        threshold = threshold_for(index, self.settings.threshold).value
        hits = index.select(scores, top_k=top_k, threshold=threshold, categories=categories)
        response = ConsultResponse(
            verdict="rules_found" if hits else "no_applicable_rule",
            rules=[_found_rule(hit, _translate(index.rulebook, hit.rule, request.lang)) for hit in hits],
            threshold=threshold,
            rulebook=RulebookRef.of(index.rulebook),
            reason=_reason(scores),
        )
        self.metrics.observe_stage("search", time.perf_counter() - start)
        self._cache[key] = response
        if len(self._cache) > self.settings.cache_size:
            self._cache.popitem(last=False)
        return response

    async def nearest(self, request: ConsultRequest, *, digest: str | None = None) -> NearestResponse:
        """Returns the rules nearest to a situation, best first, including those below the threshold.

        Raises:
            UnknownDigestError: that rulebook is no longer available.
            ConsultError: the rulebook lacks a requested category.
            NotReadyError: the encoder is not warm yet.
        """
        index = await self._snapshot(digest)
        categories = _requested_categories(request, index)
        scores = await self._batcher.scores(split_into_windows(request.situation), index)
        hits = index.ranked(scores, request.top_k or DEFAULT_NEAREST, categories)
        response = NearestResponse(
            rules=[_near_rule(hit, _translate(index.rulebook, hit.rule, request.lang)) for hit in hits],
            threshold=threshold_for(index, self.settings.threshold).value,
            rulebook=RulebookRef.of(index.rulebook),
            reason=_reason(scores),
        )
        if self.audit is not None:
            await self.audit.record(request.situation, response, request="nearest")
        return response

    async def hint(self, request: ConsultRequest) -> ConsultResponse:
        """Returns the result of a consultation of this situation, for a hint before the model decides.

        It counts as a hint in the audit log and not as a consultation. A consultation of the same situation
        afterwards is answered from the cache.

        Raises:
            NotReadyError: the encoder is not warm yet.
        """
        response = await self._answer(request, await self._snapshot(None))
        if self.audit is not None:
            await self.audit.record(request.situation, response, request="hint")
        self.metrics.count_hint(response)
        return response

    async def reload(self) -> bool:
        """Serves the current content of the rules folders. Returns whether the rulebook changed.

        Folders that cannot be served leave the old snapshot in place and set `reload_error`.
        """
        return await self._reloader.reload()

    async def warm(self) -> None:
        """Warms up the encoder, because the first encoding is slow. Raises the encoder's exceptions."""
        try:
            await self._batcher.scores(["warm up"], self.snapshots.current)
        except Exception as error:
            self.encoder_error = f"the encoder does not work: {error}"
            raise
        self.ready = True

    async def _rotate_audit(self, audit: AuditLog) -> None:
        """Applies the retention period even when nothing is written to the log."""
        while True:
            await asyncio.sleep(AUDIT_ROTATION_SECONDS)
            try:
                await audit.rotate_in_background()
            except OSError as error:
                log.warning("old audit lines cannot be removed: %s", error or "the disk does not respond")


def _reason(scores: Floats) -> Reason | None:
    """Returns the reason why nothing was searched: no window of the question is in a language of the
    encoders."""
    return "unsupported_language" if len(scores) and bool(np.isneginf(scores).all()) else None


def _translate(rulebook: Rulebook, rule: Rule, lang: str | None) -> Rule:
    """Returns the rule in a language, else the original. `zh-Hans-CN` falls back to `zh-Hans`, then `zh`."""
    tag = (lang or "").lower()
    while tag:
        for name in rulebook.languages:
            if name.lower() == tag and (rule.id, name) in rulebook.translations:
                return rulebook.translations[rule.id, name]
        tag = tag.rpartition("-")[0]
    return rule


def _requested_categories(request: ConsultRequest, index: RuleIndex) -> frozenset[str] | None:
    """Returns the requested categories, None for all. Raises ConsultError when the rulebook lacks one."""
    unknown = sorted(set(request.categories or ()) - set(index.categories))
    if unknown:
        raise ConsultError(
            f"`categories`: {', '.join(name[:64] or '(empty)' for name in unknown[:3])} is not in the "
            f"rulebook; valid: {', '.join(index.categories)}"
        )
    return None if request.categories is None else frozenset(request.categories)


def _near_rule(hit: Hit, rule: Rule) -> NearRule:
    return NearRule(id=rule.id, title=rule.title, category=rule.category, stance=rule.stance, score=hit.score)


def _found_rule(hit: Hit, rule: Rule) -> FoundRule:
    return FoundRule(
        id=rule.id,
        title=rule.title,
        category=rule.category,
        stance=rule.stance,
        score=hit.score,
        text=rule.text,
    )
