"""Verifies OAuth access tokens: JWTs with a signature, issuer, audience and expiry time."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rule_server.errors import AuthUnavailableError, StartError
from rule_server.settings import is_loopback

if TYPE_CHECKING:
    from jwt import PyJWK

    from rule_server.settings import Settings

log = logging.getLogger(__name__)

RSA_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
ALGORITHMS = (*RSA_ALGORITHMS, "ES256", "ES384", "ES512", "EdDSA")
"""Asymmetric signatures only: never a shared secret, never `none`."""
CLOCK_LEEWAY = 30
"""Seconds by which clocks may differ."""
MAX_TOKEN_CHARS = 16_384
"""Maximum length of a token."""
MAX_KEY_AGE = 300.0
"""Seconds after which keys are fetched again, so that a withdrawn one is not accepted for longer."""
MIN_FETCH_INTERVAL = 10.0
"""Minimum seconds between two fetches, even if tokens name unknown keys or have wrong signatures."""
FAILED_FETCH_INTERVAL = 60.0
"""Seconds before expired keys are fetched again after a failure. Until then, they stay in use."""
MAX_KEY_SET_BYTES = 1 << 20


class KeySet:
    """Public keys of the authorization server by key id, from a file or a URL."""

    def __init__(self, source: str) -> None:
        """Raises StartError when the file cannot be used or the URL is not secure."""
        self._source = source
        self._keys: dict[str | None, SigningKey] = {}
        self._fetched = -MAX_KEY_AGE
        self._tried = -MIN_FETCH_INTERVAL
        self._failed = -FAILED_FETCH_INTERVAL
        self._stamp: int | None = None
        self._fetch_lock = asyncio.Lock()
        self._is_url = "://" in source
        if self._is_url:
            parts = urlsplit(source)
            if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname or "")):
                raise StartError(f"the keys at {source} must come by https, or an attacker could forge them")
        else:
            try:
                self._read_file()
            except (OSError, ValueError) as error:
                raise StartError(
                    f"{source} cannot be used as a JSON Web Key Set ({error}): name such a file, "
                    "or an https URL"
                ) from None

    async def find(self, key_id: str | None) -> SigningKey | None:
        """Returns the key of an id, or the only key when the token names none.

        Raises:
            AuthUnavailableError: no keys could be fetched yet.
        """
        if not self._is_url:
            self._reload_if_changed()
        else:
            now = time.monotonic()
            expired = now - self._fetched > MAX_KEY_AGE and now - self._failed > FAILED_FETCH_INTERVAL
            if expired or self._lookup(key_id) is None:
                await self._refresh()
            if not self._keys:
                raise AuthUnavailableError(
                    "could not fetch the authorization server's signing keys (JWKS): retry later"
                )
        return self._lookup(key_id)

    async def find_newer(self, key_id: str | None) -> SigningKey | None:
        """Fetches the keys again, and returns the key of an id if there are newer ones; else None.

        Called for a token that its key does not verify, since a server may replace a key under its id.
        """
        if not self._is_url:
            return None
        fetched = self._fetched
        await self._refresh()
        return self._lookup(key_id) if self._fetched > fetched else None

    async def _refresh(self) -> None:
        """Fetches the keys, unless that was tried a moment ago."""
        async with self._fetch_lock:
            if time.monotonic() - self._tried > MIN_FETCH_INTERVAL:
                await self._fetch()

    def _lookup(self, key_id: str | None) -> SigningKey | None:
        if key_id is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(key_id)

    def _read_file(self) -> None:
        file = Path(self._source)
        stamp = file.stat().st_mtime_ns
        self._keys, self._stamp = parse_keys(file.read_bytes()[: MAX_KEY_SET_BYTES + 1]), stamp

    def _reload_if_changed(self) -> None:
        try:
            if Path(self._source).stat().st_mtime_ns != self._stamp:
                self._read_file()
        except (OSError, ValueError) as error:
            log.warning("keeping the old OAuth keys: %s: %s", self._source, error)

    async def _fetch(self) -> None:
        import httpx2

        self._tried = time.monotonic()
        try:
            async with (
                httpx2.AsyncClient(timeout=5, follow_redirects=False) as client,
                client.stream("GET", self._source) as response,
            ):
                response.raise_for_status()
                body = b""
                async for piece in response.aiter_bytes():
                    body += piece
                    if len(body) > MAX_KEY_SET_BYTES:
                        break
            self._keys = parse_keys(body)
            self._fetched = time.monotonic()
        except (httpx2.HTTPError, ValueError) as error:
            self._failed = time.monotonic()
            log.warning("the OAuth keys cannot be fetched from %s: %s", self._source, error)


@dataclass(frozen=True)
class SigningKey:
    """A public key, and the algorithms that it may verify: its `alg`, else those of its kind."""

    key: PyJWK
    algorithms: tuple[str, ...]


def parse_keys(body: bytes) -> dict[str | None, SigningKey]:
    """Parses a JWK set into keys by key id. Keys of unsupported kinds are left out.

    Raises:
        ValueError: the text is not a JWK set, or has no usable key.
    """
    from jwt import PyJWKSet
    from jwt.exceptions import PyJWTError

    if len(body) > MAX_KEY_SET_BYTES:
        raise ValueError(f"it is larger than {MAX_KEY_SET_BYTES >> 20} MiB")
    try:
        value = json.loads(body)
        keys = PyJWKSet.from_dict(value).keys
    except (PyJWTError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(str(error) or "it is not a key set") from None
    usable = [key for key in keys if key.algorithm_name in ALGORITHMS and key.public_key_use in (None, "sig")]
    if not usable:
        raise ValueError("it has no public key for signatures")
    declared = {item.get("kid") for item in value["keys"] if item.get("alg")}
    return {
        key.key_id: SigningKey(
            key,
            RSA_ALGORITHMS
            if key.key_type == "RSA" and key.key_id not in declared
            else (str(key.algorithm_name),),
        )
        for key in usable
    }


class AccessTokenVerifier:
    """Verifies access tokens against the configured issuer, keys and audience."""

    def __init__(self, settings: Settings) -> None:
        """Raises StartError when one of the three OAuth settings is missing."""
        issuer, keys, audience = settings.oauth_issuer, settings.oauth_jwks, settings.resource_url
        if issuer is None or keys is None or audience is None:
            raise StartError(
                "OAuth needs three settings together: oauth_issuer, oauth_jwks (its key set, https or "
                "a file) and resource_url (the audience of its tokens, as https://rules.example.org/mcp)"
            )
        self._issuer, self._audience = issuer, audience
        self._keys = KeySet(keys)

    async def claims(self, token: str) -> dict[str, Any] | None:
        """Returns the claims of a valid token, else None.

        Raises:
            AuthUnavailableError: the token cannot be verified now.
        """
        import jwt

        if len(token) > MAX_TOKEN_CHARS or token.count(".") != 2:
            return None
        try:
            key_id = jwt.get_unverified_header(token).get("kid")
            key = await self._keys.find(key_id)
            if key is None:
                return None
            try:
                return self._decode(token, key)
            except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError, jwt.InvalidKeyError):
                newer = await self._keys.find_newer(key_id)
                return None if newer is None else self._decode(token, newer)
        except (jwt.PyJWTError, RecursionError):
            return None

    def _decode(self, token: str, key: SigningKey) -> dict[str, Any]:
        import jwt

        claims: dict[str, Any] = jwt.decode(
            token,
            key.key.key,
            algorithms=list(key.algorithms),
            audience=self._audience,
            issuer=self._issuer,
            leeway=CLOCK_LEEWAY,
            options={"require": ["exp", "iss", "aud"]},
        )
        return claims


def token_scopes(claims: dict[str, Any]) -> set[str]:
    """Returns the scopes of a token from the claims `scope` and `scp`, each a string of words or a list."""
    scopes: set[str] = set()
    for name in ("scope", "scp"):
        value = claims.get(name)
        if isinstance(value, str):
            scopes.update(value.split())
        elif isinstance(value, list):
            scopes.update(item for item in value if isinstance(item, str))
    return scopes


def caller_name(claims: dict[str, Any]) -> str:
    """Returns the name of the caller for logs: the subject, else the client."""
    for name in ("sub", "client_id", "azp"):
        value = claims.get(name)
        if isinstance(value, str) and value:
            return "oauth:" + "".join(c if c.isprintable() else "?" for c in value[:200])
    return "oauth:?"
