"""The gateway listening on an address."""

from __future__ import annotations

import socket
from collections.abc import Callable

from agent.errors import GatewayError
from agent.gateway.settings import Settings, is_loopback
from agent.rules_client import RulesClient


def serve(
    settings: Settings, rules: RulesClient, host: str, port: int, on_ready: Callable[[str], None]
) -> None:
    """Serve until interrupted; `on_ready` is told the base URL that applications use.

    Raises:
        GatewayError: when the address is not this machine's alone and that was not asked for, or is taken.
    """
    import uvicorn

    from agent.gateway.app import Gateway

    if not is_loopback(host) and not settings.allow_remote:
        raise GatewayError(
            f"--host {host} would let other machines ask with no check of who they are: "
            "use 127.0.0.1, or pass --allow-remote",
            type="remote_refused",
            setup=True,
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise GatewayError(
            f"cannot listen on {host} port {port} ({error.strerror}): choose another --port",
            type="address",
            setup=True,
        ) from error
    with listening:
        gateway = Gateway(settings, rules)
        config = uvicorn.Config(
            gateway.app,
            log_level="warning",
            access_log=False,
            server_header=False,
            date_header=False,
            ws="none",
            lifespan="on",
            timeout_graceful_shutdown=5,
        )
        shown = f"[{host}]" if ":" in host else host
        on_ready(f"http://{shown}:{listening.getsockname()[1]}/v1")
        uvicorn.Server(config).run(sockets=[listening])
