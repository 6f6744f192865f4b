"""The web page over HTTP: complete, without external resources, and with a strict policy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx2
import pytest

import rule_server.api.page.routes
from rule_server import RuleService, Settings
from rule_server.api.app import create_app
from rule_server.api.auth import new_token
from rule_server.retrieval.build import load_or_build
from tests.fakes.processes.live_server import LiveServer

FILES = ("/", "/page/page.css", "/page/page.js", "/page/icon.svg")


def get(served: LiveServer, path: str, **options: Any) -> Any:
    return httpx2.get(served.origin + path, timeout=30, **options)


@pytest.mark.parametrize("path", FILES)
def test_page_files_have_a_strict_policy_and_an_etag(served: LiveServer, path: str) -> None:
    answer = get(served, path)
    assert answer.status_code == 200
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["referrer-policy"] == "no-referrer"
    again = get(served, path, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_page_files_contain_no_external_url(served: LiveServer) -> None:
    folder = Path(rule_server.api.page.__file__).parent
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix != ".py")
    assert sorted(get(served, path).text for path in FILES) == sorted(
        path.read_text(encoding="utf-8") for path in files
    )
    for path in files:
        text = path.read_text(encoding="utf-8").replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert not re.search(r"(https?:)?//[a-z0-9-]+\.[a-z]", text), path.name


def test_the_page_has_no_inline_script_or_style_and_creates_no_markup_from_text() -> None:
    folder = Path(rule_server.api.page.__file__).parent
    html = (folder / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"<script[^>]*>(.*?)</script>", html, re.DOTALL) == [""]
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", html)
    script = (folder / "page.js").read_text(encoding="utf-8")
    unsafe = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|Function\("
    assert not re.search(unsafe, script)


def test_a_rejected_edit_is_shown_outside_the_views_and_looked_for_while_the_page_is_open() -> None:
    folder = Path(rule_server.api.page.__file__).parent
    before_views = (folder / "index.html").read_text(encoding="utf-8").partition("<section data-view")[0]
    assert re.search(r'<div id="rejected" [^>]*role="status"', before_views)
    script = (folder / "page.js").read_text(encoding="utf-8")
    for name in ("load", "follow", "activity"):
        body = re.search(rf"async function {name}\(.*?\n}}\n", script, re.DOTALL)
        assert body
        assert "showRejected()" in body[0], name


def test_the_page_says_that_a_language_was_not_searched() -> None:
    script = (Path(rule_server.api.page.__file__).parent / "page.js").read_text(encoding="utf-8")
    body = re.search(r"function outcome\(.*?\n}\n", script, re.DOTALL)
    assert body
    hint = body[0].partition('if (reason === "unsupported_language") {')[2].partition("\n  }")[0]
    assert "The rules cannot be searched in this language: ask in English" in hint


def test_documentation_pages_with_external_scripts_are_off(served: LiveServer) -> None:
    for path in ("/docs", "/redoc"):
        assert get(served, path).status_code == 404


def test_with_tokens_the_page_is_public_and_its_data_is_not(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "tokens.jsonl"
    token = new_token(file, "reader", ["consult", "read"], "2026-01-01T00:00:00Z")
    guarded = settings.model_copy(update={"tokens_file": file})
    with LiveServer(
        create_app(RuleService(load_or_build(guarded, notify=lambda _: None), guarded))
    ) as served:
        assert [get(served, path).status_code for path in FILES] == [200] * 4
        paths = ("/v1/rules", "/v1/categories", "/v1/rulebook", "/v1/changes", "/v1/usage")
        assert {get(served, path).status_code for path in paths} == {401}
        headers = {"Authorization": f"Bearer {token}"}
        assert {get(served, path, headers=headers).status_code for path in paths} == {200}


def test_the_nearest_rules_are_returned_with_scores_even_if_none_applies(served: LiveServer) -> None:
    with httpx2.Client(base_url=served.origin, timeout=30) as client:
        for _ in range(200):
            if client.get("/readyz").status_code == 200:
                break
        question = {"situation": "What is 17 times 23?"}
        assert client.post("/v1/consult", json=question).json()["rules"] == []
        nearest = client.post("/v1/nearest", json=question).json()
        assert len(nearest["rules"]) == 3
        scores = [rule["score"] for rule in nearest["rules"]]
        assert scores == sorted(scores, reverse=True)
        assert scores[0] < nearest["threshold"]
        one = client.post("/v1/nearest", json={**question, "top_k": 1, "categories": ["kitchen"]}).json()
        assert [rule["id"] for rule in one["rules"]] == ["kitchen.knives"]
        assert client.post("/v1/nearest", json={"situation": ""}).status_code == 422
