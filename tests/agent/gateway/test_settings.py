"""Settings of the gateway: the addresses that it accepts."""

import pytest

from agent.errors import GatewayError
from agent.gateway import Settings
from agent.gateway.settings import is_loopback


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        *((host, True) for host in ("localhost", "LocalHost", "127.0.0.1", "127.8.9.10", "::1", "[::1]")),
        *((host, True) for host in ("::ffff:127.0.0.1", "[::ffff:127.0.0.1]", "0:0:0:0:0:0:0:1")),
        *((host, False) for host in ("127.example.org", "127.0.0.1.example.org", "localhost.example.org")),
        *((host, False) for host in ("0.0.0.0", "::", "192.168.0.1", "::ffff:10.0.0.1", "[::1", "::1]", "")),
    ],
)
def test_only_localhost_and_loopback_literals_are_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize("upstream", ["127.0.0.1:8000", "ftp://127.0.0.1/v1", "http://:secret@/v1"])
def test_an_invalid_upstream_is_refused_without_its_secrets(upstream: str) -> None:
    with pytest.raises(GatewayError, match="Example: http://127") as caught:
        Settings(upstream)
    assert "secret" not in str(caught.value)
