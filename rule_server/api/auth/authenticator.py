"""Who asks, and what that caller may do: by a token of a file, an OAuth access token, or without any."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rule_server.api.auth.oauth import AccessTokens, name_of, scopes_of
from rule_server.api.auth.tokens import SCOPES, Scope, TokenFile
from rule_server.errors import StartError
from rule_server.settings import is_loopback

if TYPE_CHECKING:
    from rule_server.settings import Settings

METADATA = "/.well-known/oauth-protected-resource"


@dataclass(frozen=True)
class Principal:
    """Who asks."""

    name: str
    scopes: frozenset[str]
    limited: bool
    """Whether the rate limit holds for it."""


LOCAL = Principal("local", frozenset(SCOPES), limited=False)
"""Who may start the service may ask it: callers on loopback without tokens, and stdio."""


class Authenticator:
    """Finds the principal of a request by its Authorization header."""

    def __init__(self, settings: Settings) -> None:
        """Raises StartError when settings contradict each other or a file cannot be used."""
        self.tokens = TokenFile(settings.tokens_file) if settings.tokens_file is not None else None
        oauth = settings.oauth_issuer or settings.oauth_jwks
        self._access = AccessTokens(settings) if oauth else None
        self.required = self.tokens is not None or self._access is not None
        """Whether a caller must say who it is."""
        if self.required and settings.allow_anonymous:
            raise StartError("allow_anonymous and tokens contradict each other: leave one of them out")
        self._settings = settings
        self.metadata: dict[str, object] | None = None
        """What the OAuth metadata route answers; None without OAuth."""
        self.metadata_path = METADATA
        self._challenge = "Bearer"
        if self._access is not None:
            assert settings.resource_url is not None
            parts = urlsplit(settings.resource_url)
            self.metadata_path = METADATA + parts.path.rstrip("/")
            self._challenge += f' resource_metadata="{parts.scheme}://{parts.netloc}{self.metadata_path}"'
            self.metadata = {
                "resource": settings.resource_url,
                "authorization_servers": [settings.oauth_issuer],
                "scopes_supported": list(SCOPES),
                "bearer_methods_supported": ["header"],
            }

    async def principal(self, authorization: bytes | None, client: str) -> Principal | None:
        """Who asks; None when the token is missing or not valid.

        `client` is the address that the request came from.

        Raises:
            AuthUnavailableError: when an access token cannot be checked now.
        """
        if not self.required:
            return nameless(self._settings, client)
        kind, _, token = (authorization or b"").decode("latin-1").partition(" ")
        token = token.strip()
        if kind.lower() != "bearer" or not token:
            return None
        if self.tokens is not None and (entry := self.tokens.find(token)) is not None:
            return Principal(entry.name, frozenset(entry.scopes), limited=True)
        if self._access is not None and (claims := await self._access.claims(token)) is not None:
            return Principal(name_of(claims), frozenset(scopes_of(claims)), limited=True)
        return None

    def challenge(self, *, given: bool, scope: Scope | None = None) -> str:
        """The WWW-Authenticate header of a refusal: was a token given, and which scope does it lack?"""
        parameters = []
        if scope is not None:
            parameters = ['error="insufficient_scope"', f'scope="{scope}"']
        elif given:
            parameters = ['error="invalid_token"']
        separator = ", " if " " in self._challenge else " "
        return self._challenge + (separator + ", ".join(parameters) if parameters else "")


def nameless(settings: Settings, client: str) -> Principal:
    """A caller that nobody asked for its name; one from elsewhere may ask and read, and nothing else."""
    if not settings.exposed and is_loopback(client):
        return LOCAL
    return Principal(f"anonymous@{client}", frozenset(("consult", "read")), limited=True)


def needed_scope(path: str) -> Scope:
    """What a caller must be allowed to use a route; unknown ones too, so that nothing is told for free."""
    if path in ("/v1/consult", "/v1/nearest", "/mcp"):
        return "consult"
    return "admin" if path.startswith("/v1/admin/") else "read"


def is_public(path: str, method: str) -> bool:
    """Routes that hold no data: the page without what it shows, and where to get a token."""
    return method in ("GET", "HEAD") and (path == "/" or path.startswith(("/page/", METADATA)))
