"""The one place where a question becomes an answer, whichever protocol it came by."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from rule_server.errors import ConsultError, NotReadyError, RuleServiceError
from rule_server.observability import AuditLog, describe_answer, now, start_tracing
from rule_server.observability.metrics import Metrics
from rule_server.retrieval import Threshold, split_into_windows
from rule_server.retrieval.artefact import Artefact
from rule_server.retrieval.build import LoadedIndex, rebuild
from rule_server.retrieval.index import Hit, RuleIndex, threshold_for
from rule_server.rulebook import Rule, Rulebook, layers, load_rulebook
from rule_server.schemas import (
    NEAREST,
    ConsultRequest,
    ConsultResponse,
    FoundRule,
    NearestResponse,
    NearRule,
    RulebookRef,
)
from rule_server.service.batching import Batcher
from rule_server.service.changes import Changes, Rejected
from rule_server.service.snapshots import Snapshots
from rule_server.service.usage import UsageCounter
from rule_server.settings import Settings

log = logging.getLogger(__name__)

LOOK_AGAIN = 1.0
"""Seconds after which a rules folder is looked for anew: another one may lie in its place."""


class RuleService:
    """Answers from one snapshot of the rulebook, and swaps it for another without a request seeing both."""

    def __init__(self, prepared: LoadedIndex, settings: Settings) -> None:
        self.settings = settings
        self.rules = prepared.rules
        self.ready = False
        self.changes = Changes.none(prepared.index.rulebook)
        """What the last reload changed, and why the newest edit is not served, if it is not."""
        self.usage = UsageCounter()
        self.trouble: str | None = None
        """What keeps the service from working."""
        self.unfollowed: str | None = None
        """Why edits are not followed at present, though they should be."""
        self.snapshots = Snapshots(prepared.index, Artefact(settings.artefact), settings.snapshots)
        self._encoder = prepared.encoder
        self.metrics = Metrics(prepared.index.rulebook, lambda: self._batcher.depth)
        self.audit = AuditLog(settings) if settings.audit_file is not None else None
        self.telemetry = start_tracing(settings)
        self._batcher = Batcher(prepared.encoder, self.metrics.stage)
        self._cache: OrderedDict[tuple[object, ...], ConsultResponse] = OrderedDict()
        self._reloading = asyncio.Lock()
        self._reloads: set[asyncio.Task[bool]] = set()

    @property
    def rulebook(self) -> Rulebook:
        """The rulebook of the present snapshot."""
        return self.snapshots.current.rulebook

    @property
    def reload_error(self) -> str | None:
        """Why the last edit is not served; None when it is."""
        rejected = self.changes.rejected
        return rejected.problem if rejected is not None else self.trouble or self.unfollowed

    @property
    def threshold(self) -> Threshold:
        """The threshold in force and where it comes from."""
        return threshold_for(self.snapshots.current, self.settings.threshold)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Consultations are answered while this block runs: once the encoder is warm, which `ready` tells."""
        async with self._batcher.running():
            tasks: list[asyncio.Task[None] | asyncio.Task[bool]] = [asyncio.create_task(self.warm())]
            if self.settings.watch and self.rules:
                tasks.append(asyncio.create_task(self._watch()))
            if self.audit is not None:
                tasks.append(asyncio.create_task(self._tidy(self.audit)))
            try:
                yield
            finally:
                self.ready = False
                tasks += self._reloads
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        if self.audit is not None:
            self.audit.close()
        if self.telemetry is not None:
            await asyncio.to_thread(self.telemetry.close)

    async def consult(self, request: ConsultRequest, *, digest: str | None = None) -> ConsultResponse:
        """The rules that apply to a situation, of the present rulebook or of an earlier one by its digest.

        Raises:
            UnknownDigestError: for a rulebook that is not held any more.
            ConsultError: for a category that the rulebook does not have.
            NotReadyError: before the encoder is warm.
        """
        index = await self._snapshot(digest)
        if self.telemetry is None:
            response = await self._answer(request, index)
        else:
            with self.telemetry.consultation() as span:
                response = await self._answer(request, index)
                describe_answer(span, len(request.situation), response)
        if self.audit is not None:
            self.audit.write(request.situation, response)
        self.usage.add(response)
        self.metrics.consultation(response)
        return response

    async def _snapshot(self, digest: str | None) -> RuleIndex:
        """What one request sees throughout, whatever is swapped meanwhile."""
        if not self.ready:
            raise NotReadyError("the service is starting: ask again in a moment")
        return self.snapshots.current if digest is None else await self.snapshots.get(digest)

    async def _answer(self, request: ConsultRequest, index: RuleIndex) -> ConsultResponse:
        wanted = _wanted(request, index)
        top_k = request.top_k or self.settings.default_top_k
        key = (index.rulebook.digest, request.situation, wanted, top_k, request.lang)
        known = self._cache.get(key)
        self.metrics.cache(known is not None)
        if known is not None:
            self._cache.move_to_end(key)
            return known
        scores = await self._batcher.scores(split_into_windows(request.situation), index)
        began = time.perf_counter()
        threshold = threshold_for(index, self.settings.threshold).value
        hits = index.choose(scores, top_k=top_k, threshold=threshold, categories=wanted)
        response = ConsultResponse(
            verdict="rules_found" if hits else "no_applicable_rule",
            rules=[_found(hit, _spoken(index.rulebook, hit.rule, request.lang)) for hit in hits],
            threshold=threshold,
            rulebook=RulebookRef.of(index.rulebook),
        )
        self.metrics.stage("search", time.perf_counter() - began)
        self._cache[key] = response
        if len(self._cache) > self.settings.cache_size:
            self._cache.popitem(last=False)
        return response

    async def nearest(self, request: ConsultRequest, *, digest: str | None = None) -> NearestResponse:
        """The rules nearest to a situation, best first, whether or not they reach the threshold: for people.

        Raises:
            UnknownDigestError: for a rulebook that is not held any more.
            ConsultError: for a category that the rulebook does not have.
            NotReadyError: before the encoder is warm.
        """
        index = await self._snapshot(digest)
        wanted = _wanted(request, index)
        scores = await self._batcher.scores(split_into_windows(request.situation), index)
        hits = index.ranked(scores, request.top_k or NEAREST, wanted)
        return NearestResponse(
            rules=[_near(hit, _spoken(index.rulebook, hit.rule, request.lang)) for hit in hits],
            threshold=threshold_for(index, self.settings.threshold).value,
            rulebook=RulebookRef.of(index.rulebook),
        )

    async def reload(self) -> bool:
        """Serve the rules folder as it is now; whether that changed anything.

        A folder that cannot be served leaves the old snapshot in place, and its reason in `reload_error`.
        What was begun goes on when the caller no longer waits: embedding may take longer than a request may.
        """
        task = asyncio.create_task(self._reload())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)
        return await asyncio.shield(task)

    async def _reload(self) -> bool:
        async with self._reloading:
            current = self.snapshots.current
            try:
                index = await asyncio.to_thread(self._rebuilt, current)
            except (RuleServiceError, OSError) as error:
                told = isinstance(error, RuleServiceError)
                problem = str(error) if told else f"the rules cannot be read: {error}"
                rejected = Rejected(at=now(), problem=problem)
                self.changes = self.changes.model_copy(update={"rejected": rejected})
                self.metrics.reload("rejected")
                log.warning("the edit is not served: %s", problem)
                return False
            if index is current:
                self.changes = self.changes.model_copy(update={"rejected": None})
                self.metrics.reload("unchanged")
                return False
            self.snapshots.push(index)
            self.changes = Changes.between(current.rulebook, index.rulebook)
            self.metrics.reload("served")
            self.metrics.serving(index.rulebook)
            log.info("now serving %s %s %s", *RulebookRef.of(index.rulebook).model_dump().values())
            return True

    def _rebuilt(self, current: RuleIndex) -> RuleIndex:
        """In a thread of its own: the present index when the rulebook has not changed, else the new one."""
        if not self.rules:
            return current
        rulebook = load_rulebook(self.rules, self.settings.variables)
        if rulebook.digest == current.rulebook.digest:
            return current
        artefact, own_rules = Artefact(self.settings.artefact), not self.settings.dir
        return rebuild(artefact, rulebook, self._encoder, current, own_rules, log.warning)

    async def warm(self) -> None:
        """Pay for the first encoding now. Raises what the encoder raises."""
        try:
            await self._batcher.scores(["warm up"], self.snapshots.current)
        except Exception as error:
            self.trouble = f"the encoder does not work: {error}"
            raise
        self.ready = True

    async def _tidy(self, audit: AuditLog) -> None:
        """Retention holds for a log that nobody writes to as well."""
        while True:
            await asyncio.sleep(600)
            try:
                audit.tidy()
            except OSError as error:
                log.warning("old audit lines cannot be removed: %s", error)

    async def _watch(self) -> None:
        while True:
            try:
                await self._follow()
            except Exception as error:  # the watcher's own: no inotify handles left, folder removed
                problem = f"edits are not followed: {error}"
                if problem != self.unfollowed:
                    log.warning(problem)
                self.unfollowed = problem
                await asyncio.sleep(LOOK_AGAIN)

    async def _follow(self) -> None:
        """Reload at every edit, until the folders to follow are others than those that are watched."""
        from watchfiles import awatch

        followed = layers(self.rules)  # an edit of rulebook.yaml may put our own rules beneath
        places, roots = [_place(folder) for folder in followed], {folder.absolute() for folder in followed}
        timeout = int(LOOK_AGAIN * 1000)
        watched = awatch(*followed, debounce=200, step=50, rust_timeout=timeout, yield_on_timeout=True)
        begun = False
        async with aclosing(watched):
            async for edits in watched:
                if edits or not begun:  # what was edited before the watch began is noticed by nobody else
                    begun, self.unfollowed = True, None
                    await self.reload()
                    if layers(self.rules) != followed:
                        return
                # A folder removed and made again may be given its old number.
                removed = any(Path(path) in roots for _, path in edits)
                if removed or [_place(folder) for folder in followed] != places:
                    return


def _place(folder: Path) -> tuple[int, int] | None:
    """What a watch is bound to; another folder under the same name is another place."""
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _spoken(rulebook: Rulebook, rule: Rule, lang: str | None) -> Rule:
    """The rule in a language: `zh-Hans-CN`, else `zh-Hans`, else `zh`, in any case; else the original."""
    wanted = (lang or "").lower()
    while wanted:
        for name in rulebook.languages:
            if name.lower() == wanted and (rule.id, name) in rulebook.translations:
                return rulebook.translations[rule.id, name]
        wanted = wanted.rpartition("-")[0]
    return rule


def _wanted(request: ConsultRequest, index: RuleIndex) -> frozenset[str] | None:
    """The categories asked for, None for all. Raises ConsultError when the rulebook lacks one."""
    unknown = sorted(set(request.categories or ()) - set(index.categories))
    if unknown:
        raise ConsultError(
            f"`categories`: {', '.join(name[:64] or '(empty)' for name in unknown[:3])} is not in the "
            f"rulebook; valid: {', '.join(index.categories)}"
        )
    return None if request.categories is None else frozenset(request.categories)


def _near(hit: Hit, rule: Rule) -> NearRule:
    return NearRule(id=rule.id, title=rule.title, category=rule.category, stance=rule.stance, score=hit.score)


def _found(hit: Hit, rule: Rule) -> FoundRule:
    return FoundRule(
        id=rule.id,
        title=rule.title,
        category=rule.category,
        stance=rule.stance,
        score=hit.score,
        text=rule.text,
    )
