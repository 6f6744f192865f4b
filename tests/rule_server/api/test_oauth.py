"""OAuth access tokens: only those issued for this service are accepted."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from rule_server import StartError
from rule_server.api.auth import Authenticator
from rule_server.settings import Settings
from tests.fakes.processes.live_server import LiveServer
from tests.fakes.rules.toy_service import serve_toy

ISSUER, RESOURCE = "https://login.example.org", "https://rules.example.org/mcp"
RSA, OTHER = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
CURVE = ec.generate_private_key(ec.SECP256R1())


def key_set() -> dict[str, Any]:
    one = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(RSA.public_key())) | {"kid": "one", "alg": "RS256"}
    two = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(CURVE.public_key())) | {"kid": "two", "use": "sig"}
    return {"keys": [one, two]}


def token(key: Any = RSA, kid: str = "one", alg: str = "RS256", **claims: Any) -> str:
    payload = {"iss": ISSUER, "aud": RESOURCE, "exp": time.time() + 300, "sub": "agent-7", "scope": "read x"}
    payload = {name: value for name, value in (payload | claims).items() if value is not None}
    return jwt.encode(payload, key, alg, {"kid": kid})


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("oauth")
    keys = folder / "jwks.json"
    keys.write_text(json.dumps(key_set()))
    settings = {"oauth_issuer": ISSUER, "oauth_jwks": str(keys), "resource_url": RESOURCE}
    with serve_toy(folder, **settings) as running:
        yield running


def status(served: LiveServer, bearer: str, path: str = "/v1/rulebook") -> int:
    headers = {"Authorization": f"Bearer {bearer}"}
    return httpx2.get(served.origin + path, headers=headers, timeout=20).status_code


def test_a_token_for_this_service_is_accepted_with_its_scopes(served: LiveServer) -> None:
    assert status(served, token()) == 200
    assert status(served, token(CURVE, "two", "ES256", scope=None, scp=["read"])) == 200
    assert status(served, token(scope="consult")) == 403
    assert status(served, token(scope=None)) == 403


@pytest.mark.parametrize(
    "bad",
    [
        lambda: token(aud="https://other.example.org/mcp"),
        lambda: token(aud=None),
        lambda: token(iss="https://evil.example.org"),
        lambda: token(exp=time.time() - 300),
        lambda: token(exp=None),
        lambda: token(nbf=time.time() + 300),
        lambda: token(OTHER),
        lambda: token(kid="three"),
        lambda: token("k" * 32, alg="HS256"),
        lambda: jwt.encode({"iss": ISSUER, "aud": RESOURCE, "exp": time.time() + 300}, None, "none"),
        lambda: token()[:-9],
        lambda: "a.b.c",
        lambda: "x" * 20_000,
    ],
)
def test_any_other_token_is_refused(served: LiveServer, bad: Any) -> None:
    assert status(served, bad()) == 401


@pytest.mark.parametrize("alg", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"])
def test_a_key_without_algorithm_verifies_every_one_of_its_kind(tmp_path: Path, alg: str) -> None:
    keys = key_set()
    del keys["keys"][0]["alg"]
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps(keys), encoding="utf-8")
    settings = {"oauth_issuer": ISSUER, "oauth_jwks": str(file), "resource_url": RESOURCE}
    with serve_toy(tmp_path, **settings) as served:
        assert status(served, token(alg=alg)) == 200
        other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        assert status(served, token(other, alg=alg)) == 401
        assert status(served, token("k" * 32, alg="HS256")) == 401
        assert status(served, token(CURVE, kid="one", alg="ES256")) == 401


def test_a_key_with_an_algorithm_verifies_no_other(served: LiveServer) -> None:
    assert status(served, token(alg="PS256")) == 401


def test_a_refusal_points_to_the_authorization_server(served: LiveServer) -> None:
    refused = httpx2.post(f"{served.origin}/mcp", json={})
    address = "https://rules.example.org/.well-known/oauth-protected-resource/mcp"
    assert refused.headers["www-authenticate"] == f'Bearer resource_metadata="{address}"'
    metadata = httpx2.get(served.origin + "/.well-known/oauth-protected-resource/mcp").json()
    assert metadata["resource"] == RESOURCE
    assert metadata["authorization_servers"] == [ISSUER]


def test_keys_are_cached_and_not_fetched_for_every_bad_token(tmp_path: Path) -> None:
    fetched: list[int] = []
    down = [True]

    async def keys(_: Request) -> Response:
        fetched.append(1)
        return Response(status_code=500) if down[0] else JSONResponse(key_set())

    with LiveServer(Starlette(routes=[Route("/jwks", keys)])) as issuer:
        settings = {"oauth_issuer": ISSUER, "oauth_jwks": f"{issuer.origin}/jwks", "resource_url": RESOURCE}
        with serve_toy(tmp_path / "down", **settings) as served:
            refused = httpx2.get(
                f"{served.origin}/v1/rulebook", headers={"Authorization": f"Bearer {token()}"}
            )
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "10")
        down[0] = False
        fetched.clear()
        with serve_toy(tmp_path / "up", **settings) as served:
            assert [status(served, token()) for _ in range(3)] == [200] * 3
            assert [status(served, token(kid=f"made-up-{n}")) for n in range(5)] == [401] * 5
    assert len(fetched) == 1


@contextmanager
def replaced_key(
    folder: Path, replace: Callable[[], dict[str, Any]]
) -> Iterator[tuple[LiveServer, list[int]]]:
    """Yields a service that has verified a token by a key that the server then replaced under its id.

    The list grows with every fetch of the keys since then.
    """
    current, fetched = [key_set()], list[int]()

    async def keys(_: Request) -> Response:
        fetched.append(1)
        return JSONResponse(current[0])

    with LiveServer(Starlette(routes=[Route("/jwks", keys)])) as issuer:
        settings = {"oauth_issuer": ISSUER, "oauth_jwks": f"{issuer.origin}/jwks", "resource_url": RESOURCE}
        with serve_toy(folder, **settings) as served:
            assert status(served, token()) == 200
            current[0] = replace()
            fetched.clear()
            yield served, fetched


def other_rsa_key() -> dict[str, Any]:
    return {"keys": [json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(OTHER.public_key())) | {"kid": "one"}]}


def key_of_another_kind() -> dict[str, Any]:
    return {"keys": [json.loads(jwt.algorithms.ECAlgorithm.to_jwk(CURVE.public_key())) | {"kid": "one"}]}


@pytest.mark.parametrize(
    ("replace", "key", "alg"), [(other_rsa_key, OTHER, "RS256"), (key_of_another_kind, CURVE, "ES256")]
)
def test_a_key_that_replaces_another_under_its_id_is_used_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replace: Any, key: Any, alg: str
) -> None:
    monkeypatch.setattr("rule_server.api.auth.oauth.MIN_FETCH_INTERVAL", 0.0)
    with replaced_key(tmp_path, replace) as (served, _):
        assert status(served, token(key, alg=alg)) == 200
        assert status(served, token()) == 401


def test_wrong_signatures_fetch_the_keys_only_at_intervals(tmp_path: Path) -> None:
    with replaced_key(tmp_path, key_set) as (served, fetched):
        assert [status(served, token(OTHER)) for _ in range(5)] == [401] * 5
    assert fetched == []


def test_a_replaced_key_is_refused_after_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with replaced_key(tmp_path, other_rsa_key) as (served, fetched):
        later = SimpleNamespace(monotonic=lambda: time.monotonic() + 301)
        monkeypatch.setattr("rule_server.api.auth.oauth.time", later)
        assert [status(served, token()) for _ in range(3)] == [401] * 3
    assert fetched == [1]


def test_insecure_oauth_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="three settings together"):
        Authenticator(Settings(oauth_issuer=ISSUER))
    for source, message in (
        ("http://keys.example.org/jwks", "must come by https"),
        ("/nowhere", "cannot be used"),
    ):
        with pytest.raises(StartError, match=message):
            Authenticator(Settings(oauth_issuer=ISSUER, oauth_jwks=source, resource_url=RESOURCE))
    private = tmp_path / "secret.json"
    private.write_text(json.dumps({"keys": [{"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"}]}))
    with pytest.raises(StartError, match="no public key for signatures"):
        Authenticator(Settings(oauth_issuer=ISSUER, oauth_jwks=str(private), resource_url=RESOURCE))
