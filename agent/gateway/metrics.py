"""Metrics of the gateway, exported in the Prometheus text format."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Metric, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class GatewayMetrics:
    """Totals since the gateway started (`ascl_gateway_<attribute>_total`), and whether the rules are off."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.rules_off = Gauge(
            "ascl_gateway_rules_off",
            "1 if the gateway runs with --rules-url none, and so offers no rules.",
            registry=self.registry,
        )
        self.requests = self._counter("requests", "Conversations requested.")
        self.not_offered = self._counter(
            "not_offered",
            "Conversations forwarded without the rule tool, because it was excluded or could not be added.",
        )
        self.consulted = self._counter("consulted", "Conversations in which the model consulted the rules.")
        self.consultations = self._counter("consultations", "Calls of the rule tool.")
        self.hints = self._counter("hints", "Hints added to system texts.")
        self.decision_bias_missing = self._counter(
            "decision_bias_missing",
            "Conversations without the decision bias: the API has none, or the upstream refused it.",
            "cause",
        )
        self.rules_errors = self._counter(
            "rules_errors", "Conversations in which the rules could not be consulted."
        )
        self.mixed = self._counter(
            "mixed", "Replies that called both the rule tool and the caller's own tools."
        )
        self.restored = self._counter(
            "restored", "Consultations inserted again into a later request of the caller."
        )
        self.coalesced = self._counter(
            "coalesced", "Repeated requests that resumed an earlier attempt's consultations."
        )
        self.text_before_consulting = self._counter(
            "text_before_consulting", "Streams that sent text to the caller before the model consulted."
        )
        self.upstream_errors = self._counter(
            "upstream_errors", "Conversations that the upstream did not answer."
        )
        self.abandoned = self._counter("abandoned", "Conversations whose caller left before the end.")
        self.passed_through = self._counter(
            "passed_through", "Requests of other routes, forwarded without the rule tool.", "route"
        )
        self.answers_without_rules = self._counter(
            "answers_without_rules",
            "Answers given although the rules could not be consulted, by the cause.",
            "cause",
        )

    def _counter(self, name: str, description: str, *labels: str) -> Counter:
        return Counter(f"ascl_gateway_{name}", description, labels, registry=self.registry)

    def text(self) -> str:
        """Returns all metrics in the Prometheus text format."""
        return generate_latest(_WithoutCreationTimes(self.registry)).decode()


class _WithoutCreationTimes:
    """A registry without the `_created` series, which would double the number of series."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            metric.samples = [each for each in metric.samples if not each.name.endswith("_created")]
            yield metric
