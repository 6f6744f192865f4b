"""Prometheus metrics of the service."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest

from rule_server.schemas import Reason

if TYPE_CHECKING:
    from rule_server.rulebook import Rulebook
    from rule_server.schemas import ConsultResponse

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
STAGES = ("queue", "encode", "score", "search")
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Metrics of one service.

    No label holds a value that callers choose, so the number of series is bounded.
    """

    def __init__(self, rulebook: Rulebook, queue_depth: Callable[[], float]) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "ascl_requests", "Requests by route and status.", ("route", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "ascl_request_seconds",
            "Seconds per request.",
            ("route",),
            buckets=BUCKETS,
            registry=self.registry,
        )
        verdicts = Counter(
            "ascl_consultations", "Consultations by verdict.", ("verdict",), registry=self.registry
        )
        self._verdicts = {
            verdict: verdicts.labels(verdict) for verdict in ("rules_found", "no_applicable_rule")
        }
        hints = Counter("ascl_hints", "Hints by verdict.", ("verdict",), registry=self.registry)
        self._hints = {verdict: hints.labels(verdict) for verdict in self._verdicts}
        unsearched = Counter(
            "ascl_unsearched",
            "Consultations that were not searched, by reason.",
            ("reason",),
            registry=self.registry,
        )
        self._unsearched = {reason: unsearched.labels(reason) for reason in get_args(Reason)}
        stages = Histogram(
            "ascl_stage_seconds",
            "Seconds per stage of a consultation: queueing, encoding and scoring a batch, choosing rules.",
            ("stage",),
            buckets=BUCKETS,
            registry=self.registry,
        )
        self._stages = {stage: stages.labels(stage) for stage in STAGES}
        cache = Counter(
            "ascl_cache", "Response cache lookups by result.", ("result",), registry=self.registry
        )
        self._cache = {True: cache.labels("hit"), False: cache.labels("miss")}
        depth = Gauge("ascl_queue_depth", "Questions waiting to be encoded.", registry=self.registry)
        depth.set_function(queue_depth)
        self._rulebook = Info("ascl_rulebook", "The current rulebook.", registry=self.registry)
        reloads = Counter(
            "ascl_reloads", "Reloads of the rules folder by result.", ("result",), registry=self.registry
        )
        self._reloads = {result: reloads.labels(result) for result in ("served", "unchanged", "rejected")}
        self._rejected = Gauge(
            "ascl_edit_rejected", "1 while the newest edit cannot be served.", registry=self.registry
        )
        self._by_route: dict[tuple[str, int], tuple[Counter, Histogram]] = {}
        self.set_rulebook(rulebook)

    def count_request(self, route: str, status: int, seconds: float) -> None:
        series = self._by_route.get((route, status))
        if series is None:
            series = (self._requests.labels(route, str(status)), self._seconds.labels(route))
            self._by_route[route, status] = series
        series[0].inc()
        series[1].observe(seconds)

    def count_consultation(self, response: ConsultResponse) -> None:
        self._verdicts[response.verdict].inc()
        if response.reason is not None:
            self._unsearched[response.reason].inc()

    def count_hint(self, response: ConsultResponse) -> None:
        self._hints[response.verdict].inc()

    def count_cache_lookup(self, hit: bool) -> None:
        self._cache[hit].inc()

    def observe_stage(self, name: str, seconds: float) -> None:
        """Records the duration of one of STAGES."""
        self._stages[name].observe(seconds)

    def set_rulebook(self, rulebook: Rulebook) -> None:
        self._rulebook.info({"digest": rulebook.digest, "name": rulebook.name, "version": rulebook.version})

    def count_reload(self, result: str) -> None:
        """Counts a reload by its result: `served`, `unchanged` or `rejected`."""
        self._reloads[result].inc()
        self._rejected.set(result == "rejected")

    def render(self) -> str:
        """Returns all metrics in the Prometheus text format."""
        return str(generate_latest(self.registry), "utf-8")
