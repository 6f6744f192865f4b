"""Authenticates callers by a token of the tokens file or an OAuth access token, and maps them to scopes."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rule_server.api.auth.oauth import AccessTokenVerifier, caller_name, token_scopes
from rule_server.api.auth.tokens import SCOPES, Scope, TokenFile
from rule_server.errors import StartError
from rule_server.observability import LOCAL_CALLER
from rule_server.settings import is_loopback

if TYPE_CHECKING:
    from rule_server.settings import Settings

NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
METADATA_PATH = "/.well-known/oauth-protected-resource"


@dataclass(frozen=True)
class Principal:
    """A caller and its permissions."""

    name: str
    scopes: frozenset[str]
    limited: bool
    """Whether the rate limit applies to it."""
    rate_key: str = ""
    """Callers with the same key share one rate limit."""


LOCAL_PRINCIPAL = Principal(LOCAL_CALLER, frozenset(SCOPES), limited=False)
"""Callers on loopback without tokens, and stdio. A user who may start the service may use all of it."""


class Authenticator:
    """Determines the principal of a request from its Authorization header."""

    def __init__(self, settings: Settings) -> None:
        """Raises StartError when settings contradict each other or a file cannot be used."""
        self.tokens = TokenFile(settings.tokens_file) if settings.tokens_file is not None else None
        oauth = settings.oauth_issuer or settings.oauth_jwks
        self._verifier = AccessTokenVerifier(settings) if oauth else None
        self.required = self.tokens is not None or self._verifier is not None
        """Whether callers need a token."""
        if self.required and settings.allow_anonymous:
            raise StartError("allow_anonymous and tokens contradict each other: leave one of them out")
        self._settings = settings
        self.metadata: dict[str, object] | None = None
        """OAuth protected resource metadata (RFC 9728). None without OAuth."""
        self.metadata_path = METADATA_PATH
        self._challenge = "Bearer"
        if self._verifier is not None:
            assert settings.resource_url is not None
            parts = urlsplit(settings.resource_url)
            self.metadata_path = METADATA_PATH + parts.path.rstrip("/")
            self._challenge += f' resource_metadata="{parts.scheme}://{parts.netloc}{self.metadata_path}"'
            self.metadata = {
                "resource": settings.resource_url,
                "authorization_servers": [settings.oauth_issuer],
                "scopes_supported": list(SCOPES),
                "bearer_methods_supported": ["header"],
            }

    async def authenticate(self, authorization: bytes | None, client: str) -> Principal | None:
        """Returns the principal of a request, or None when the token is missing or not valid.

        `client` is the address that the request came from.

        Raises:
            AuthUnavailableError: an access token cannot be verified now.
        """
        if not self.required:
            return anonymous_principal(self._settings, client)
        kind, _, token = (authorization or b"").decode("latin-1").partition(" ")
        token = token.strip()
        if kind.lower() != "bearer" or not token:
            return None
        if self.tokens is not None and (entry := self.tokens.find(token)) is not None:
            return Principal(entry.name, frozenset(entry.scopes), True, f"token {entry.name}")
        if self._verifier is not None and (claims := await self._verifier.claims(token)) is not None:
            name = caller_name(claims)
            return Principal(name, frozenset(token_scopes(claims)), True, name)
        return None

    def challenge(self, *, given: bool, scope: Scope | None = None) -> str:
        """Returns the WWW-Authenticate header of a refusal.

        Args:
            given: whether the request had a token.
            scope: the scope that the token lacks, if that is the reason.
        """
        parameters = []
        if scope is not None:
            parameters = ['error="insufficient_scope"', f'scope="{scope}"']
        elif given:
            parameters = ['error="invalid_token"']
        separator = ", " if " " in self._challenge else " "
        return self._challenge + (separator + ", ".join(parameters) if parameters else "")


def anonymous_principal(settings: Settings, client: str) -> Principal:
    """Returns the principal of a caller without a token.

    One from another machine may consult and read only.
    """
    if not settings.exposed and is_loopback(client):
        return LOCAL_PRINCIPAL
    address, network = _locate(client)
    return Principal(f"anonymous@{address}", frozenset(("consult", "read")), True, f"network {network}")


@lru_cache(maxsize=4096)
def _locate(client: str) -> tuple[str, str]:
    """Returns the canonical address of a client, and the network that has one rate limit.

    One IPv6 subscriber has at least a /64. An IPv4 address within an IPv6 one (mapped, NAT64, 6to4, Teredo)
    counts as IPv4. Proxies may add a port. Clients without a valid address share one network.
    """
    host = client.removeprefix("[").partition("]")[0] if client.startswith("[") else client
    if host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return client, "unknown"
    if isinstance(address, ipaddress.IPv4Address):
        return str(address), str(address)
    teredo = address.teredo
    inner = address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo is not None else None)
    if inner is None and address in NAT64:
        inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if inner is not None:
        return str(inner), str(inner)
    return str(address), str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))


def required_scope(path: str) -> Scope:
    """Returns the scope that a path requires. Unknown paths need one too, so probing them reveals nothing."""
    if path in ("/v1/consult", "/v1/nearest", "/mcp"):
        return "consult"
    return "admin" if path.startswith("/v1/admin/") else "read"


def is_public(path: str, method: str) -> bool:
    """Returns whether a route contains no data: the static page, the OAuth metadata, and unknown metadata.

    A client takes a 404 there for "no such metadata", but a 401 for an error.
    """
    if method not in ("GET", "HEAD"):
        return False
    return path == "/" or path.startswith("/page/") or "/.well-known/" in f"{path}/"
