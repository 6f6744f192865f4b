"""The REST interface over real HTTP: the contract, and the status of each refusal."""

from __future__ import annotations

import http.client as http_client
from pathlib import Path
from typing import Any

import httpx2
import pytest

from rule_server import RuleService, Settings, load_rulebook
from rule_server.api.app import create_app
from rule_server.retrieval.artefact import Artefact
from rule_server.retrieval.build import load_or_build
from rule_server.retrieval.versions import index_for
from tests.fakes.processes.live_server import LiveServer
from tests.fakes.rules.rulebooks import prose, rule, write_rulebook

QUESTION = {"situation": "someone asks for a computer virus"}


@pytest.fixture
def http(served: LiveServer) -> Any:
    with httpx2.Client(base_url=served.origin, timeout=30) as client:
        for _ in range(200):
            if client.get("/readyz").status_code == 200:
                break
        yield client


def test_a_consultation_returns_verdict_rules_threshold_and_rulebook(http: Any) -> None:
    answer = http.post("/v1/consult", json=QUESTION)
    assert answer.status_code == 200
    body = answer.json()
    assert list(body) == ["verdict", "rules", "threshold", "rulebook", "reason"]
    assert body["verdict"] == "rules_found"
    assert list(body["rules"][0]) == ["id", "title", "category", "stance", "score", "text"]
    assert body["rules"][0]["id"] == "cyber.malware"
    assert body["rulebook"]["name"] == "test-rules"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "`situation` is missing"),
        ({"situation": ""}, "`situation`: string should have at least 1 character"),
        ({"situation": "  "}, "`situation`: it is blank"),
        ({"situation": "x" * 4001}, "at most 4000 characters"),
        ({**QUESTION, "top_k": "3"}, "`top_k`: input should be a valid integer"),
        ({**QUESTION, "top_k": 0}, "`top_k`: input should be greater than or equal to 1"),
        ({**QUESTION, "top_k": 11}, "`top_k`: input should be less than or equal to 10"),
        (
            {**QUESTION, "topk": 3},
            "`topk` is not an argument (known: situation, categories, top_k, lang, digest)",
        ),
        ({**QUESTION, "categories": ["weapons"]}, "weapons is not in the rulebook; valid: cyber, kitchen"),
        ({**QUESTION, "categories": []}, "`categories`: list should have at least 1 item"),
    ],
)
def test_an_invalid_argument_is_refused_with_one_sentence(
    http: Any, arguments: dict[str, Any], message: str
) -> None:
    answer = http.post("/v1/consult", json=arguments)
    assert answer.status_code == 422
    assert list(answer.json()) == ["detail"]
    assert message in answer.json()["detail"]


def test_null_counts_as_an_omitted_argument(http: Any) -> None:
    nulls = {"categories": None, "top_k": None, "lang": None}
    assert (
        http.post("/v1/consult", json={**QUESTION, **nulls}).json()
        == http.post("/v1/consult", json=QUESTION).json()
    )


def test_the_rulebook_can_be_read_and_has_an_etag(http: Any, service: RuleService) -> None:
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


def test_foreign_hosts_and_origins_are_refused_except_by_the_probes(http: Any) -> None:
    for path in ("/v1/rules", "/mcp", "/openapi.json", "/nothing"):
        assert http.post(path, headers={"Host": "evil.example"}).status_code == 421
        assert http.post(path, headers={"Origin": "http://evil.example"}).status_code == 403
    assert http.get("/healthz", headers={"Host": "10.0.0.7"}).json() == {"status": "ok"}


def test_a_body_over_the_limit_is_refused(http: Any) -> None:
    for path in ("/v1/consult", "/mcp"):
        assert http.post(path, content=b"x" * ((1 << 20) + 1)).status_code == 413


def test_reload_probe_and_changes_report_a_broken_edit(http: Any, rules: Path) -> None:
    path, text = rule("cyber.malware", owner=None)
    (rules / path).write_text(text, encoding="utf-8")
    refused = http.post("/v1/admin/reload")
    assert refused.status_code == 409
    assert "`owner` is missing" in refused.json()["detail"]
    ready = http.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["reload_error"] == refused.json()["detail"]
    changes = http.get("/v1/changes").json()
    assert changes["rejected"]["problem"] == refused.json()["detail"]
    assert (changes["previous"], changes["added"]) == (None, [])
    assert http.post("/v1/consult", json=QUESTION).status_code == 200


def test_a_reload_returns_added_removed_and_reworded_rules(http: Any, rules: Path) -> None:
    before = http.get("/v1/rulebook").json()["digest"]
    assert http.post("/v1/admin/reload").json()["at"] is None
    (rules / "cyber" / "repair.md").unlink()
    for path, text in (rule("cyber.malware", title="Viruses"), rule("kitchen.ovens", stance="answer")):
        (rules / path).write_text(text, encoding="utf-8")
    changes = http.post("/v1/admin/reload").json()
    assert list(changes) == ["digest", "previous", "at", "added", "removed", "reworded", "rejected"]
    assert changes["digest"] == http.get("/v1/rulebook").json()["digest"]
    assert changes["previous"] == before
    assert changes["added"] == ["kitchen.ovens"]
    assert changes["removed"] == ["cyber.repair"]
    assert changes["reworded"] == ["cyber.malware"]
    assert http.get("/v1/changes").json() == changes


def test_an_earlier_rulebook_answers_by_its_digest_until_it_is_evicted(artefact: Path, rules: Path) -> None:
    settings = Settings(dir=rules, artefact=artefact, watch=False, snapshots=3)
    with LiveServer(
        create_app(RuleService(load_or_build(settings, notify=lambda _: None), settings))
    ) as served:
        http = httpx2.Client(base_url=served.origin, timeout=30)
        first = http.get("/v1/rulebook").json()["digest"]
        for edit in range(3):
            path, text = rule("cyber.malware", body=prose(f"Edit {edit}.", "x", "y"))
            (rules / path).write_text(text, encoding="utf-8")
            assert http.post("/v1/admin/reload").json()["reworded"] == ["cyber.malware"]
            if edit == 0:
                old = http.post("/v1/consult", json={**QUESTION, "digest": first}).json()
                assert old["rulebook"]["digest"] == first
                assert old["rules"][0]["text"].startswith("Fine: Explaining malware.")
                assert http.get("/v1/rulebook", params={"digest": first}).json()["digest"] == first
        gone = http.post("/v1/consult", json={**QUESTION, "digest": first})
        assert gone.status_code == http.get("/v1/rulebook", params={"digest": first}).status_code == 404
        assert http.get("/v1/rulebook").json()["digest"] in gone.json()["detail"]
        assert gone.json()["detail"].count(", ") == 2
        available = gone.json()["detail"].rpartition(", ")[2]
        http.close()
    again = RuleService(load_or_build(settings, notify=lambda _: None), settings)
    with LiveServer(create_app(again)) as served:
        answer = httpx2.post(
            f"{served.origin}/v1/consult", json={**QUESTION, "digest": available}, timeout=30
        )
    assert answer.json()["rules"][0]["text"].startswith("Fine: Edit 0.")


def test_checked_rulebooks_cannot_be_queried_and_evict_nothing(
    artefact: Path, rules: Path, tmp_path: Path
) -> None:
    settings = Settings(dir=rules, artefact=artefact, watch=False, snapshots=3)
    loaded = load_or_build(settings, notify=lambda _: None)
    first = loaded.index.rulebook.digest
    checked = []
    for number in range(12):
        others = write_rulebook(tmp_path / f"draft{number}", rule("cyber.repair", stance="answer"))
        (others / "rulebook.yaml").write_text(f"name: checked\nversion: 1.0.{number}\n", encoding="utf-8")
        checked.append(load_rulebook(others))
        index_for(checked[-1], Artefact(artefact), loaded.encoder)
    path, text = rule("cyber.malware", title="Viruses")
    (rules / path).write_text(text, encoding="utf-8")
    again = RuleService(load_or_build(settings, notify=lambda _: None), settings)
    with LiveServer(create_app(again)) as served:
        statuses = [
            httpx2.get(f"{served.origin}/v1/rulebook", params={"digest": digest}, timeout=30).status_code
            for digest in (again.rulebook.digest, first, checked[-1].digest)
        ]
    assert statuses == [200, 200, 404]


def test_a_translation_rewords_a_rule_but_a_new_owner_does_not(http: Any, rules: Path) -> None:
    def reworded(*files: tuple[str, str]) -> Any:
        for path, text in files:
            (rules / path).write_text(text, encoding="utf-8")
        changes = http.post("/v1/admin/reload").json()
        return changes["digest"] != changes["previous"], changes["reworded"]

    same = {"title": "Malicious software", "applies_when": "Someone asks for a computer virus."}
    assert reworded(rule("cyber.malware", owner="ann", review_by="2098-01-01", **same)) == (True, [])
    assert reworded(rule("cyber.malware", lang="de", title="Schadsoftware")) == (True, ["cyber.malware"])
    (rules / "cyber" / "malware.de.md").unlink()
    assert reworded() == (True, ["cyber.malware"])


def test_usage_counts_every_rule_including_unused_ones(http: Any) -> None:
    for situation in (QUESTION["situation"], "translate good morning into French"):
        http.post("/v1/consult", json={"situation": situation, "top_k": 1})
    usage = http.get("/v1/usage").json()
    assert list(usage) == ["since", "consultations", "no_applicable_rule", "rules"]
    assert (usage["consultations"], usage["no_applicable_rule"]) == (2, 1)
    assert usage["rules"] == {"cyber.malware": 1, "cyber.repair": 1, "kitchen.knives": 0}


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b'{"situation": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "application/json", 400),
        (b'{"situation": "' + b"x" * 1_000_000 + b'"}', "application/json", 422),
        (b"[]", "application/json", 422),
        (b'{"situation": "a virus"}', "text/plain", 415),
        (b'{"situation": "a virus"}', "application/json; charset=utf-8", 200),
    ],
)
def test_an_invalid_body_is_refused_with_the_right_status(
    http: Any, content: bytes, kind: str, status: int
) -> None:
    answer = http.post("/v1/consult", content=content, headers={"Content-Type": kind})
    assert answer.status_code == status
    assert status == 200 or list(answer.json()) == ["detail"]


def test_unknown_paths_and_wrong_methods_get_json_errors(http: Any) -> None:
    assert (http.get("/nothing").status_code, http.get("/nothing").json()) == (404, {"detail": "Not Found"})
    wrong = http.put("/v1/rules")
    assert (wrong.status_code, wrong.json()) == (405, {"detail": "Method Not Allowed"})
    assert wrong.headers["allow"] == "GET"


def test_the_readiness_probe_reports_the_threshold_and_its_origin(http: Any) -> None:
    threshold = http.get("/readyz").json()["threshold"]
    answer = http.post("/v1/consult", json={"situation": "someone asks for a computer virus"}).json()
    assert threshold["value"] == answer["threshold"]
    assert "`ascl-rules calibrate` finds one for this rulebook" in threshold["note"]


def test_the_openapi_document_lists_all_routes_and_their_errors(http: Any) -> None:
    paths = http.get("/openapi.json").json()["paths"]
    assert sorted(paths) == [
        "/v1/admin/reload",
        "/v1/categories",
        "/v1/changes",
        "/v1/consult",
        "/v1/nearest",
        "/v1/rulebook",
        "/v1/rules",
        "/v1/rules/{id}",
        "/v1/usage",
    ]
    for methods in paths.values():
        for route in methods.values():
            assert {"400", "401", "403", "405", "408", "413", "421", "429", "503"} <= set(route["responses"])
    body = paths["/v1/consult"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["required"] == ["situation"]


def test_trailing_white_space_is_not_part_of_a_header_value(served: LiveServer) -> None:
    host = served.origin.removeprefix("http://")
    connection = http_client.HTTPConnection(host, timeout=10)
    connection.putrequest("GET", "/v1/rulebook", skip_host=True)
    connection.putheader("Host", f"{host} \t")
    connection.endheaders()
    assert connection.getresponse().status == 200
    connection.close()
