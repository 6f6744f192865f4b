"""What a gateway is told when it starts."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from agent.episode import OnRulesError
from agent.errors import GatewayError
from agent.urls import public_address, without_secrets

Coalesce = Literal["marked", "equal", "off"]


@dataclass(frozen=True)
class Settings:
    """Times are in seconds, sizes in bytes.

    Raises:
        GatewayError: when the upstream is no http(s) address.
    """

    upstream: str
    """Base URL of the model's API, with /v1."""
    on_rules_error: OnRulesError = "answer"
    """What to do when the rules cannot be consulted."""
    hold: bool = False
    """Whether text is kept back until it is known that the turn consults nothing."""
    log: Path | None = None
    """Episode log that every conversation is appended to."""
    log_keep_days: int | None = None
    """Days that conversations are kept, in a file a day; None keeps one file for good."""
    most_consultations: int = 4
    """Carried out for one request; afterwards the model is asked without the rule tool."""
    body_limit: int = 32 * 1024 * 1024
    """Largest request that is read."""
    timeout: float = 600.0
    """Longest silence of the upstream."""
    keepalive: float = 10.0
    """Longest silence towards a streaming caller."""
    coalesce: Coalesce = "marked"
    """Which requests are taken for one sent again: those that say so, `equal` ones too, or none (`off`)."""
    coalesce_window: float = 120.0
    """How long what a try found out is kept for the next."""
    allow_remote: bool = False
    """Whether others than this machine may ask."""

    def __post_init__(self) -> None:
        try:
            public_address(self.upstream)
        except ValueError as error:
            raise GatewayError(
                f"the upstream {without_secrets(self.upstream)!r} cannot be asked ({error}): "
                "give one such as http://127.0.0.1:8000/v1",
                type="bad_address",
                setup=True,
            ) from None

    def address(self, path: str, query: str = "") -> str:
        """The upstream's address for a path below /v1, such as `/models`, and a caller's query."""
        parts = urlsplit(self.upstream)
        both = "&".join(each for each in (parts.query, query) if each)
        return urlunsplit(parts._replace(path=parts.path.rstrip("/") + path, query=both))

    @property
    def public_upstream(self) -> str:
        """The upstream without credentials, for people and logs."""
        return public_address(self.upstream)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
