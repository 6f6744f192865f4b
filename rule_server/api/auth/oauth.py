"""Access tokens of an OAuth server: JWTs whose signature, issuer, audience and time are checked."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rule_server.errors import AuthUnavailableError, StartError
from rule_server.settings import LOOPBACK

if TYPE_CHECKING:
    from jwt import PyJWK

    from rule_server.settings import Settings

log = logging.getLogger(__name__)

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures by a private key that the authorization server alone has; never a shared secret, never none."""
LEEWAY = 30
"""Seconds by which clocks may differ."""
LONGEST = 16_384
"""Characters of a token."""
OLDEST = 3600.0
"""Seconds after which keys are fetched again."""
PAUSE = 10.0
"""Seconds between two fetches, whatever tokens ask for."""
LARGEST = 1 << 20


class KeySet:
    """The public keys of the authorization server, from a file or an address, by key id."""

    def __init__(self, where: str) -> None:
        """Raises StartError when a file cannot be used, or an address is not safe."""
        self._where = where
        self._keys: dict[str | None, PyJWK] = {}
        self._fetched = -OLDEST
        self._tried = -PAUSE
        self._stamp: int | None = None
        self._fetching = asyncio.Lock()
        self._address = "://" in where
        if self._address:
            parts = urlsplit(where)
            if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
                raise StartError(f"the keys at {where} must come by https: a forged key opens every door")
        else:
            try:
                self._read_file()
            except (OSError, ValueError) as error:
                raise StartError(
                    f"{where} cannot be used as a JSON Web Key Set ({error}): name such a file, "
                    "or an https address"
                ) from None

    async def find(self, key_id: str | None) -> PyJWK | None:
        """The key of that id; the only key, when the token names none.

        Raises:
            AuthUnavailableError: when no keys could be fetched yet.
        """
        if not self._address:
            self._follow_file()
        elif time.monotonic() - self._fetched > OLDEST or self._known(key_id) is None:
            async with self._fetching:
                if time.monotonic() - self._tried > PAUSE:
                    await self._fetch()
            if not self._keys:
                raise AuthUnavailableError("the keys of the authorization server cannot be had: try later")
        return self._known(key_id)

    def _known(self, key_id: str | None) -> PyJWK | None:
        if key_id is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(key_id)

    def _read_file(self) -> None:
        file = Path(self._where)
        stamp = file.stat().st_mtime_ns
        self._keys, self._stamp = parse_keys(file.read_bytes()[: LARGEST + 1]), stamp

    def _follow_file(self) -> None:
        try:
            if Path(self._where).stat().st_mtime_ns != self._stamp:
                self._read_file()
        except (OSError, ValueError) as error:
            log.warning("the OAuth keys stay as they were: %s: %s", self._where, error)

    async def _fetch(self) -> None:
        import httpx2

        self._tried = time.monotonic()
        try:
            async with (
                httpx2.AsyncClient(timeout=5, follow_redirects=False) as client,
                client.stream("GET", self._where) as answer,
            ):
                answer.raise_for_status()
                body = b""
                async for piece in answer.aiter_bytes():
                    body += piece
                    if len(body) > LARGEST:
                        break
            self._keys = parse_keys(body)
            self._fetched = time.monotonic()
        except (httpx2.HTTPError, ValueError) as error:
            log.warning("the OAuth keys cannot be fetched from %s: %s", self._where, error)


def parse_keys(body: bytes) -> dict[str | None, PyJWK]:
    """A JWK set by key id; keys of kinds that are not used are left out.

    Raises:
        ValueError: when it is none, or holds no usable key.
    """
    from jwt import PyJWKSet
    from jwt.exceptions import PyJWTError

    if len(body) > LARGEST:
        raise ValueError(f"it is larger than {LARGEST >> 20} MiB")
    try:
        keys = PyJWKSet.from_dict(json.loads(body)).keys
    except (PyJWTError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(str(error) or "it is no key set") from None
    usable = [key for key in keys if key.algorithm_name in ALGORITHMS and key.public_key_use in (None, "sig")]
    if not usable:
        raise ValueError("it holds no public key for signatures")
    return {key.key_id: key for key in usable}


class AccessTokens:
    """Checks access tokens against the issuer, keys and audience of the settings."""

    def __init__(self, settings: Settings) -> None:
        """Raises StartError when settings that belong together are not all there."""
        issuer, keys, audience = settings.oauth_issuer, settings.oauth_jwks, settings.resource_url
        if issuer is None or keys is None or audience is None:
            raise StartError(
                "OAuth needs three settings together: oauth_issuer, oauth_jwks (its key set, https or "
                "a file) and resource_url (the audience of its tokens, as https://rules.example.org/mcp)"
            )
        self._issuer, self._audience = issuer, audience
        self._keys = KeySet(keys)

    async def claims(self, token: str) -> dict[str, Any] | None:
        """The claims of a valid token, else None.

        Raises:
            AuthUnavailableError: when it cannot be checked now.
        """
        import jwt

        if len(token) > LONGEST or token.count(".") != 2:
            return None
        try:
            key = await self._keys.find(jwt.get_unverified_header(token).get("kid"))
            if key is None:
                return None
            return jwt.decode(
                token,
                key,
                algorithms=[name for name in ALGORITHMS if name == key.algorithm_name],
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY,
                options={"require": ["exp", "iss", "aud"]},
            )
        except (jwt.PyJWTError, RecursionError):
            return None


def scopes_of(claims: dict[str, Any]) -> set[str]:
    """The scopes that a token grants: `scope`, words of a string, or `scp`, which may be a list."""
    found: set[str] = set()
    for name in ("scope", "scp"):
        value = claims.get(name)
        if isinstance(value, str):
            found.update(value.split())
        elif isinstance(value, list):
            found.update(item for item in value if isinstance(item, str))
    return found


def name_of(claims: dict[str, Any]) -> str:
    """Who asks, for logs: the subject, else the client."""
    for name in ("sub", "client_id", "azp"):
        value = claims.get(name)
        if isinstance(value, str) and value:
            return "oauth:" + "".join(c if c.isprintable() else "?" for c in value[:200])
    return "oauth:?"
