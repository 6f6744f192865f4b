"""Chooses ports for servers that cannot choose a free one themselves."""

import os
import random
import socket

FIRST_PORT, PORTS_PER_WORKER = 20_000, 500
"""The kernel assigns ports from 32768 upwards to clients and to port 0, so it assigns none of these."""


def free_port() -> int:
    """Returns a free port from the range of this test worker, so that two workers never choose the same."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = FIRST_PORT + worker % 25 * PORTS_PER_WORKER
    while True:
        port = random.SystemRandom().randrange(first, first + PORTS_PER_WORKER)
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            continue
