"""OpenTelemetry spans that join the caller's trace. Off unless an OTLP endpoint is configured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rule_server.errors import StartError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

    from rule_server.schemas import ConsultResponse
    from rule_server.settings import Settings


class Tracing:
    """Creates spans for requests and consultations. No span contains a question or a token."""

    def __init__(self, exporter: SpanExporter) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = TracerProvider(resource=Resource.create({"service.name": "ascl-rules"}))
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("ascl-rules")
        self._propagator = TraceContextTextMapPropagator()

    @contextmanager
    def request_span(self, method: str, headers: Mapping[bytes, bytes]) -> Iterator[Span]:
        """Opens a span for a request, as a child of the span in its `traceparent` header."""
        from opentelemetry.trace import SpanKind

        names = ("traceparent", "tracestate")
        carrier = {
            name: value.decode("latin-1")
            for name in names
            if (value := headers.get(name.encode())) is not None
        }
        context = self._propagator.extract(carrier)
        with self._tracer.start_as_current_span(
            method, context, SpanKind.SERVER, record_exception=False
        ) as span:
            span.set_attribute("http.request.method", method)
            yield span

    @contextmanager
    def consultation_span(self) -> Iterator[Span]:
        """Opens a span for a consultation."""
        with self._tracer.start_as_current_span("consult", record_exception=False) as span:
            yield span

    def close(self) -> None:
        """Sends the remaining spans."""
        self._provider.shutdown()


def describe_request(span: Span, caller: str, method: str, route: str, status: int) -> None:
    from opentelemetry.trace import StatusCode

    span.update_name(f"{method} {route}")
    span.set_attribute("http.route", route)
    span.set_attribute("http.response.status_code", status)
    span.set_attribute("enduser.id", caller)
    if status >= 500:
        span.set_status(StatusCode.ERROR)


def describe_response(span: Span, length: int, response: ConsultResponse) -> None:
    span.set_attribute("ascl.question.length", length)
    span.set_attribute("ascl.verdict", response.verdict)
    span.set_attribute("ascl.rules", [rule.id for rule in response.rules])
    span.set_attribute("ascl.rulebook.digest", response.rulebook.digest)


def start_tracing(settings: Settings) -> Tracing | None:
    """Starts tracing to the configured OTLP endpoint. Returns None when there is none.

    Raises:
        StartError: the telemetry packages are not installed.
    """
    if settings.otlp_endpoint is None:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        raise StartError(
            "otlp_endpoint needs packages that are not installed: pip install 'ascl[telemetry]'"
        ) from None
    return Tracing(OTLPSpanExporter(endpoint=settings.otlp_endpoint))
