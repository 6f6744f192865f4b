"""Gateway settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from agent.episode import OnRulesError
from agent.errors import GatewayError
from agent.urls import public_address, without_secrets

Coalesce = Literal["marked", "equal", "off"]


@dataclass(frozen=True)
class Settings:
    """Settings of one gateway. Times are in seconds, sizes in bytes.

    Raises:
        GatewayError: if `upstream` is not an http(s) address.
    """

    upstream: str
    """Base URL of the model's API, including /v1."""
    on_rules_error: OnRulesError = "answer"
    """Action when the rules cannot be consulted."""
    hint: bool = False
    """Whether a line about the rules near the last message of the user ends the system text."""
    logit_bias: Mapping[str, float] | None = None
    """Offsets on logits, by token ID, for chat requests that offer the rule tool; None for none."""
    hold: bool = False
    """Whether to withhold text until the turn is known not to consult the rules."""
    log: Path | None = None
    """Episode log that every conversation is appended to; None to log nothing."""
    log_keep_days: int | None = None
    """Days to keep conversations, in one file a day; None keeps a single file forever."""
    max_consultations: int = 4
    """Maximum number of consultations per request. After that, the model is called without the rule tool."""
    body_limit: int = 32 * 1024 * 1024
    """Maximum size of a request body."""
    timeout: float = 600.0
    """Maximum time without a byte from the upstream."""
    keepalive: float = 10.0
    """Maximum time without a byte to a streaming caller."""
    coalesce: Coalesce = "marked"
    """Requests that resume a failed attempt: those marked as retries, `equal` ones too, or none (`off`)."""
    coalesce_window: float = 120.0
    """Time for which the results of a failed attempt are kept for the next one."""
    grace: float = 30.0
    """Time that running replies have to finish after SIGTERM."""
    allow_remote: bool = False
    """Whether to accept requests from other machines."""

    def __post_init__(self) -> None:
        try:
            public_address(self.upstream)
        except ValueError as error:
            raise GatewayError(
                f"invalid upstream {without_secrets(self.upstream)!r}: {error}. "
                "Example: http://127.0.0.1:8000/v1",
                type="bad_address",
                setup=True,
            ) from None

    def address(self, path: str, query: str = "") -> str:
        """Returns the upstream's URL for a path below /v1, such as `/models`, with the caller's query."""
        parts = urlsplit(self.upstream)
        queries = "&".join(each for each in (parts.query, query) if each)
        return urlunsplit(parts._replace(path=parts.path.rstrip("/") + path, query=queries))

    @property
    def public_upstream(self) -> str:
        """The upstream's URL without credentials, for messages and logs."""
        return public_address(self.upstream)


def is_loopback(host: str) -> bool:
    """Returns whether `host` is `localhost` or a loopback IP address, such as `127.0.0.2` or `[::1]`.

    A name is never resolved: `127.example.org` is not loopback.
    """
    if host.lower() == "localhost":
        return True
    literal = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        address = ip_address(literal)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if address.version == 6 else None
    return (mapped or address).is_loopback
