"""The service as REST, over real HTTP: the contract, and what is refused with which status."""

from __future__ import annotations

import http.client as http_client
from typing import Any

import httpx2
import pytest

from rule_server import RuleService
from tests.fakes.serving import Served

QUESTION = {"situation": "someone asks for a computer virus"}


@pytest.fixture
def http(served: Served) -> Any:
    with httpx2.Client(base_url=served.origin, timeout=30) as client:
        for _ in range(200):
            if client.get("/readyz").status_code == 200:
                break
        yield client


def test_a_consultation_returns_verdict_rules_threshold_and_rulebook(http: Any) -> None:
    answer = http.post("/v1/consult", json=QUESTION)
    assert answer.status_code == 200
    body = answer.json()
    assert list(body) == ["verdict", "rules", "threshold", "rulebook"]
    assert body["verdict"] == "rules_found"
    assert list(body["rules"][0]) == ["id", "title", "category", "stance", "score", "text"]
    assert body["rules"][0]["id"] == "cyber.malware"
    assert body["rulebook"]["name"] == "test-rules"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "`situation` is missing"),
        ({"situation": ""}, "`situation`: string should have at least 1 character"),
        ({"situation": "  "}, "`situation`: it is blank"),
        ({"situation": "x" * 4001}, "at most 4000 characters"),
        ({**QUESTION, "top_k": "3"}, "`top_k`: input should be a valid integer"),
        ({**QUESTION, "top_k": 0}, "`top_k`: input should be greater than or equal to 1"),
        ({**QUESTION, "top_k": 11}, "`top_k`: input should be less than or equal to 10"),
        ({**QUESTION, "topk": 3}, "`topk` is not an argument (known: situation, categories, top_k, lang)"),
        ({**QUESTION, "categories": ["weapons"]}, "weapons is not in the rulebook; valid: cyber, kitchen"),
        ({**QUESTION, "categories": []}, "`categories`: list should have at least 1 item"),
    ],
)
def test_a_wrong_argument_is_refused_with_one_sentence(
    http: Any, arguments: dict[str, Any], said: str
) -> None:
    answer = http.post("/v1/consult", json=arguments)
    assert answer.status_code == 422
    assert list(answer.json()) == ["detail"]
    assert said in answer.json()["detail"]


def test_null_stands_for_an_argument_left_out(http: Any) -> None:
    nulls = {"categories": None, "top_k": None, "lang": None}
    assert (
        http.post("/v1/consult", json={**QUESTION, **nulls}).json()
        == http.post("/v1/consult", json=QUESTION).json()
    )


def test_the_rulebook_can_be_read_and_is_not_sent_twice(http: Any, service: RuleService) -> None:
    rules = http.get("/v1/rules")
    assert [rule["id"] for rule in rules.json()] == ["cyber.malware", "cyber.repair", "kitchen.knives"]
    assert rules.headers["etag"] == f'"{service.rulebook.digest}"'
    for path in ("/v1/rules", "/v1/rules/cyber.malware", "/v1/categories", "/v1/rulebook"):
        again = http.get(path, headers={"If-None-Match": rules.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    assert http.get("/v1/rules/cyber.malware").json()["title"] == "Malicious software"
    assert [(c["id"], c["rules"]) for c in http.get("/v1/categories").json()] == [
        ("cyber", 2),
        ("kitchen", 1),
    ]
    assert http.get("/v1/rulebook").json()["digest"] == service.rulebook.digest
    missing = http.get("/v1/rules/cyber.nothing")
    assert (missing.status_code, missing.json()["detail"]) == (
        404,
        "the rulebook has no rule 'cyber.nothing': GET /v1/rules lists them",
    )


def test_foreign_hosts_and_origins_are_refused_on_every_route_but_the_probes(http: Any) -> None:
    for path in ("/v1/rules", "/mcp", "/docs"):
        assert http.post(path, headers={"Host": "evil.example"}).status_code == 421
        assert http.post(path, headers={"Origin": "http://evil.example"}).status_code == 403
    assert http.get("/healthz", headers={"Host": "10.0.0.7"}).json() == {"status": "ok"}


def test_a_body_over_the_limit_is_refused(http: Any) -> None:
    for path in ("/v1/consult", "/mcp"):
        assert http.post(path, content=b"x" * ((1 << 20) + 1)).status_code == 413


def test_a_broken_edit_is_told_by_the_readiness_probe(http: Any, service: RuleService) -> None:
    service.reload_error = "rules/cyber/malware.md: `owner` is missing"
    ready = http.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["reload_error"] == "rules/cyber/malware.md: `owner` is missing"


def test_the_readiness_probe_tells_the_threshold_and_where_it_comes_from(http: Any) -> None:
    threshold = http.get("/readyz").json()["threshold"]
    answer = http.post("/v1/consult", json={"situation": "someone asks for a computer virus"}).json()
    assert threshold["value"] == answer["threshold"]
    assert "`ascl-rules calibrate` finds one for this rulebook" in threshold["note"]


def test_the_openapi_document_names_the_routes(http: Any) -> None:
    paths = http.get("/openapi.json").json()["paths"]
    assert sorted(paths) == ["/v1/categories", "/v1/consult", "/v1/rulebook", "/v1/rules", "/v1/rules/{id}"]


def test_white_space_after_a_header_is_no_part_of_its_value(served: Served) -> None:
    host = served.origin.removeprefix("http://")
    connection = http_client.HTTPConnection(host, timeout=10)
    connection.putrequest("GET", "/v1/rulebook", skip_host=True)
    connection.putheader("Host", f"{host} \t")
    connection.endheaders()
    assert connection.getresponse().status == 200
    connection.close()
