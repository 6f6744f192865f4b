"""Metrics, spans and logs. None of them contains a question or a token."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from rule_server.api.auth import new_token
from rule_server.observability.logs import JsonLines
from tests.fakes.rules.rulebooks import rule
from tests.fakes.rules.toy_service import QUESTION, ToyServer, serve_toy, toy_service


def test_metrics_count_requests_verdicts_stages_cache_and_reloads(tmp_path: Path) -> None:
    with serve_toy(tmp_path) as served:
        for _ in range(2):
            served.client.post("/v1/consult", json=QUESTION)
        served.client.get("/v1/rules/cyber.nothing")
        served.client.get("/made/up")
        path, text = rule("cyber.malware", owner=None)
        (tmp_path / "rules" / path).write_text(text, encoding="utf-8")
        served.client.post("/v1/admin/reload")
        answer = served.client.get("/metrics")
        digest = served.client.get("/v1/rulebook").json()["digest"]
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    samples = set(answer.text.splitlines())
    assert {
        'ascl_requests_total{route="/v1/consult",status="200"} 2.0',
        'ascl_requests_total{route="/v1/rules/{id}",status="404"} 1.0',
        'ascl_requests_total{route="other",status="404"} 1.0',
        'ascl_consultations_total{verdict="rules_found"} 2.0',
        'ascl_cache_total{result="hit"} 1.0',
        'ascl_cache_total{result="miss"} 1.0',
        'ascl_stage_seconds_count{stage="search"} 1.0',
        'ascl_stage_seconds_count{stage="encode"} 2.0',
        'ascl_stage_seconds_count{stage="queue"} 2.0',
        "ascl_queue_depth 0.0",
        'ascl_reloads_total{result="rejected"} 1.0',
        "ascl_edit_rejected 1.0",
        f'ascl_rulebook_info{{digest="{digest}",name="test-rules",version="1.0.0"}} 1.0',
    } <= samples


def test_spans_join_the_callers_trace_without_the_question(tmp_path: Path) -> None:
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from rule_server.api.app import server_config
    from rule_server.observability import Tracing

    exporter = InMemorySpanExporter()
    service = toy_service(tmp_path)
    service.tracing = Tracing(exporter)
    trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    headers = {"traceparent": f"00-{trace}-{parent}-01"}
    with ToyServer(None, config=server_config(service)) as served:
        served.client.post("/v1/consult", json=QUESTION, headers=headers)
        served.client.put("/v1/consult", headers={**headers, "Host": "evil.example"})
    spans = {span.name: span for span in exporter.get_finished_spans()}
    request, consult, refused = spans["POST /v1/consult"], spans["consult"], spans["PUT /v1/consult"]
    assert f"{request.context.trace_id:032x}" == f"{consult.context.trace_id:032x}" == trace
    assert f"{request.parent.span_id:016x}" == parent
    assert consult.parent.span_id == request.context.span_id
    assert consult.attributes["ascl.question.length"] == len(QUESTION["situation"])
    assert request.attributes["http.response.status_code"] == 200
    assert refused.attributes["http.response.status_code"] == 421
    assert "virus" not in "".join(span.to_json() for span in spans.values())


def test_the_access_log_names_the_caller_without_token_and_question(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = tmp_path / "tokens.jsonl"
    token = new_token(tokens, "ci-agent", ["consult"], "now")
    caplog.set_level(logging.INFO, "rule_server")
    with serve_toy(tmp_path, tokens_file=tokens, access_log=True) as served:
        headers = {"Authorization": f"Bearer {token}"}
        served.client.post("/v1/consult", json=QUESTION, headers=headers)
        served.client.get("/v1/rules", headers={"Authorization": "Bearer ascl_wrong"})
    records = [record for record in caplog.records if record.name == "rule_server.access"]
    entries = [json.loads(JsonLines().format(record)) for record in records]
    assert [(line["caller"], line["method"], line["route"], line["status"]) for line in entries] == [
        ("ci-agent", "POST", "/v1/consult", 200),
        ("-", "GET", "other", 401),
    ]
    everything = json.dumps(entries) + caplog.text
    assert not any(secret in everything for secret in (token, "ascl_wrong", "virus"))
