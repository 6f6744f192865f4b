"""Bearer tokens and their scopes, over real HTTP and on the command line."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from typer.testing import CliRunner

from rule_server import StartError
from rule_server.api.app import check_exposure, create_app
from rule_server.api.auth import Authenticator, new_token, remove_token
from rule_server.api.auth.tokens import hash_token
from rule_server.cli import app
from rule_server.settings import Settings
from tests.fakes.processes.live_server import LiveServer
from tests.fakes.rules.rulebooks import rule, write_rulebook
from tests.fakes.rules.service_process import run_rule_service
from tests.fakes.rules.toy_service import QUESTION, serve_toy, toy_service

ROUTES = [
    ("POST", "/v1/consult", "consult"),
    ("POST", "/mcp", "consult"),
    ("GET", "/v1/rules", "read"),
    ("GET", "/v1/rules/cyber.malware", "read"),
    ("GET", "/v1/categories", "read"),
    ("GET", "/v1/rulebook", "read"),
    ("GET", "/v1/changes", "read"),
    ("GET", "/v1/usage", "read"),
    ("GET", "/metrics", "read"),
    ("GET", "/openapi.json", "read"),
    ("POST", "/v1/nearest", "consult"),
    ("POST", "/v1/admin/reload", "admin"),
    ("GET", "/nothing", "read"),
]


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    return tmp_path / "tokens.jsonl"


@pytest.fixture
def each(tokens: Path) -> dict[str, str]:
    """One token for each scope."""
    return {scope: new_token(tokens, f"{scope}er", [scope], "now") for scope in ("consult", "read", "admin")}


@pytest.fixture
def served(tmp_path: Path, tokens: Path, each: dict[str, str]) -> Iterator[LiveServer]:
    with serve_toy(tmp_path, tokens_file=tokens) as running:
        yield running


def ask(served: LiveServer, method: str, path: str, token: str | None = None) -> httpx2.Response:
    headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
    return httpx2.request(method, served.origin + path, headers=headers, json=QUESTION, timeout=20)


@pytest.mark.parametrize(("method", "path", "scope"), ROUTES)
def test_every_route_takes_only_a_token_with_its_scope(
    served: LiveServer, each: dict[str, str], method: str, path: str, scope: str
) -> None:
    none = ask(served, method, path)
    assert (none.status_code, none.headers["www-authenticate"]) == (401, "Bearer")
    bad = ask(served, method, path, "ascl_made-up")
    assert (bad.status_code, bad.headers["www-authenticate"]) == (401, 'Bearer error="invalid_token"')
    for granted, token in each.items():
        answer = ask(served, method, path, token)
        if granted == scope:
            assert answer.status_code not in (401, 403)
        else:
            assert answer.status_code == 403
            expected = f'Bearer error="insufficient_scope", scope="{scope}"'
            assert answer.headers["www-authenticate"] == expected
            assert answer.json() == {"detail": f"this caller lacks the scope `{scope}`"}


def test_probes_and_the_page_without_data_need_no_token(served: LiveServer) -> None:
    assert ask(served, "GET", "/healthz").status_code == 200
    assert ask(served, "GET", "/readyz").status_code in (200, 503)
    assert ask(served, "GET", "/").status_code in (200, 404)
    assert ask(served, "POST", "/").status_code == 401


@pytest.mark.parametrize(
    "path",
    [
        "/.well-known/oauth-protected-resource",
        "/.well-known/oauth-authorization-server",
        "/.well-known/oauth-authorization-server/mcp",
        "/.well-known/openid-configuration",
        "/mcp/.well-known/openid-configuration",
        "/.well-known/",
    ],
)
def test_unknown_metadata_is_not_found_rather_than_refused(served: LiveServer, path: str) -> None:
    assert ask(served, "GET", path).status_code == 404


def test_a_new_or_removed_token_takes_effect_with_the_next_request(served: LiveServer, tokens: Path) -> None:
    later = new_token(tokens, "later", ["read"], "now")
    assert ask(served, "GET", "/v1/rulebook", later).status_code == 200
    remove_token(tokens, "later")
    assert ask(served, "GET", "/v1/rulebook", later).status_code == 401


def test_a_broken_token_file_keeps_the_tokens_and_is_reported_by_the_probe(
    served: LiveServer, tokens: Path, each: dict[str, str]
) -> None:
    tokens.write_text("no token\n" + tokens.read_text())
    assert ask(served, "GET", "/v1/rulebook", each["read"]).status_code == 200
    assert "line 1 of the token file" in ask(served, "GET", "/readyz").json()["tokens_error"]


def test_an_incomplete_last_line_is_ignored(tokens: Path) -> None:
    token = new_token(tokens, "whole", ["read"], "now")
    with tokens.open("a") as file:
        file.write('{"name": "to')
    assert Authenticator(Settings(tokens_file=tokens)).tokens.find(token).name == "whole"  # type: ignore[union-attr]


def test_an_incomplete_line_does_not_corrupt_later_tokens(tokens: Path) -> None:
    first = new_token(tokens, "first", ["read"], "now")
    with tokens.open("a") as file:
        file.write('{"name": "to')
    second = new_token(tokens, "second", ["read"], "now")
    known = Authenticator(Settings(tokens_file=tokens)).tokens
    assert known is not None
    assert [getattr(known.find(token), "name", None) for token in (first, second)] == ["first", "second"]


def test_a_removal_keeps_the_permissions_of_the_token_file(tokens: Path) -> None:
    new_token(tokens, "x", ["read"], "now")
    tokens.chmod(0o640)
    remove_token(tokens, "x")
    assert tokens.stat().st_mode & 0o777 == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_a_removal_keeps_the_owner_of_the_token_file(tokens: Path) -> None:
    new_token(tokens, "x", ["read"], "now")
    os.chown(tokens, 12345, 12346)
    remove_token(tokens, "x")
    assert (tokens.stat().st_uid, tokens.stat().st_gid) == (12345, 12346)


def test_a_removal_through_a_link_changes_the_file_that_is_served(
    served: LiveServer, tokens: Path, each: dict[str, str], tmp_path: Path
) -> None:
    link = tmp_path / "elsewhere" / "link.jsonl"
    link.parent.mkdir()
    link.symlink_to(tokens)
    remove_token(link, "reader")
    assert link.is_symlink()
    assert ask(served, "GET", "/v1/rulebook", each["read"]).status_code == 401


def test_an_edit_that_keeps_size_and_mtime_is_detected(
    served: LiveServer, tokens: Path, each: dict[str, str]
) -> None:
    assert ask(served, "GET", "/v1/rulebook", each["read"]).status_code == 200
    before = tokens.stat()
    with tokens.open("r+") as file:
        text = file.read()
        file.seek(0)
        file.write(text.replace(hash_token(each["read"]), "0" * 64))
    os.utime(tokens, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert ask(served, "GET", "/v1/rulebook", each["read"]).status_code == 401


def test_the_command_prints_a_token_once_and_stores_only_its_hash(tokens: Path) -> None:
    runner, file = CliRunner(), ["--file", str(tokens)]
    created = runner.invoke(app, ["token", "new", "ci", "--scope", "read", "--scope", "consult", *file])
    token = created.stdout.strip()
    assert token.startswith("ascl_")
    assert token not in tokens.read_text()
    assert tokens.stat().st_mode & 0o777 == 0o600
    [listed] = json.loads(runner.invoke(app, ["token", "list", "--json", *file]).stdout)
    assert (listed["name"], listed["scopes"]) == ("ci", ["consult", "read"])
    with pytest.raises(StartError, match="has a token named ci"):
        runner.invoke(app, ["token", "new", "ci", *file], catch_exceptions=False)
    with pytest.raises(StartError, match="'all' is not a scope"):
        runner.invoke(app, ["token", "new", "x", "--scope", "all", *file], catch_exceptions=False)
    assert runner.invoke(app, ["token", "remove", "ci", *file]).exit_code == 0
    assert tokens.read_text() == ""


def test_the_first_start_creates_a_token_and_later_ones_keep_it(tmp_path: Path, artefact: Path) -> None:
    rules = write_rulebook(tmp_path / "rules", rule("cyber.malware"))
    log, file = tmp_path / "serve.log", tmp_path / "data" / "tokens.jsonl"
    settings = {"TOKENS_FILE": str(file), "CREATE_TOKEN": "true"}
    with run_rule_service(rules, artefact, log, **settings) as (url, _):
        [token] = re.findall(r"^ascl_\S+$", log.read_text(), re.MULTILINE)
        headers = {"Authorization": f"Bearer {token}"}
        assert httpx2.get(f"{url}/v1/rulebook", headers=headers).status_code == 200
        assert httpx2.get(f"{url}/v1/rulebook").status_code == 401
        assert httpx2.post(f"{url}/v1/admin/reload", headers=headers).status_code == 403
    with run_rule_service(rules, artefact, log, **settings) as (url, _):
        assert httpx2.get(f"{url}/v1/rulebook", headers=headers).status_code == 200
    assert log.read_text().count("\nascl_") + log.read_text().startswith("ascl_") == 1
    assert token not in file.read_text()


def test_a_token_cannot_be_created_without_a_place_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASCL_RULES_CREATE_TOKEN", "true")
    with pytest.raises(StartError, match="set ASCL_RULES_TOKENS_FILE too"):
        CliRunner().invoke(app, ["serve"], catch_exceptions=False)


def test_callers_behind_a_proxy_are_not_the_operator(tmp_path: Path) -> None:
    settings = {"trusted_proxies": "127.0.0.1", "allow_anonymous": True, "rate_burst": 2, "rate_limit": 0.01}
    with serve_toy(tmp_path, **settings) as served:
        outside = {"X-Forwarded-For": "203.0.113.9"}
        assert served.client.post("/v1/admin/reload", headers=outside).status_code == 403
        statuses = [served.client.get("/v1/rules", headers=outside).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]


def test_forwarded_callers_are_not_the_operator_even_if_no_setting_names_the_proxy(
    tmp_path: Path,
) -> None:
    with LiveServer(create_app(toy_service(tmp_path))) as served:  # a server that trusts proxies on loopback
        reload = f"{served.origin}/v1/admin/reload"
        assert httpx2.post(reload, headers={"X-Forwarded-For": "203.0.113.9"}).status_code == 403
        assert httpx2.post(reload).status_code == 200


def test_other_machines_are_served_only_with_tokens_or_allow_anonymous(tokens: Path) -> None:
    with pytest.raises(StartError, match=r"callers are not authenticated"):
        check_exposure(Settings(host="0.0.0.0"))
    check_exposure(Settings(host="0.0.0.0", allow_anonymous=True))
    check_exposure(Settings(host="0.0.0.0", tokens_file=tokens))
    check_exposure(Settings(host="127.0.0.1"))
    for proxied in ({"trusted_proxies": "127.0.0.1"}, {"allowed_hosts": "rules.example.org"}):
        with pytest.raises(StartError, match=r"through the proxy .* callers are not authenticated"):
            check_exposure(Settings.model_validate(proxied))
    with pytest.raises(StartError, match=r"callers are not authenticated"):
        check_exposure(Settings.model_validate({"host": "0.0.0.0", "oauth_issuer": "", "tokens_file": ""}))
    new_token(tokens, "x", ["read"], "now")
    with pytest.raises(StartError, match="contradict each other"):
        Authenticator(Settings(tokens_file=tokens, allow_anonymous=True))
    with pytest.raises(StartError, match="cannot be read"):
        Authenticator(Settings(tokens_file=tokens.with_name("none")))
