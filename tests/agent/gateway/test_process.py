"""The gateway as a process: its addresses, and how it stops."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import pytest
from typer.testing import CliRunner

from agent.cli.app import app
from tests.fakes.endpoints.scripted import ScriptedEndpoint
from tests.fakes.rules.scripted import ScriptedRules

QUESTION = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


@contextmanager
def gateway_process(
    endpoint: ScriptedEndpoint, rules: ScriptedRules, *flags: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Yields a gateway process and its base URL."""
    command = [sys.executable, "-m", "agent.cli", "gateway", "--port", "0", *flags]
    command += ["--upstream", endpoint.base_url, "--rules-url", rules.url]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            address = re.search(r"http://\S+/v1", line)
            assert address, line
            yield process, address[0]
        finally:
            process.kill()


@pytest.mark.parametrize(("grace", "finished"), [("20", True), ("0.2", False)])
def test_running_replies_have_the_grace_period_to_finish(
    rules: ScriptedRules, grace: str, finished: bool
) -> None:
    statuses: list[int] = []
    with ScriptedEndpoint(["Hello."], strict=False, delay=2.0) as endpoint:  # noqa: SIM117
        with gateway_process(endpoint, rules, "--grace", grace) as (process, url):

            def ask() -> None:
                try:
                    statuses.append(
                        httpx2.post(f"{url}/chat/completions", json=QUESTION, timeout=30).status_code
                    )
                except httpx2.HTTPError:
                    statuses.append(0)

            thread = threading.Thread(target=ask)
            thread.start()
            deadline = time.monotonic() + 20
            while not endpoint.requests and time.monotonic() < deadline:
                time.sleep(0.02)
            process.send_signal(signal.SIGTERM)
            thread.join(30)
            process.wait(30)
    assert (statuses == [200]) is finished


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_a_bracketed_ipv6_address_is_an_address_to_listen_on(rules: ScriptedRules) -> None:
    with ScriptedEndpoint(["Hello."], strict=False) as endpoint:  # noqa: SIM117
        with gateway_process(endpoint, rules, "--host", "[::1]") as (_, url):
            assert url.startswith("http://[::1]:")
            assert httpx2.post(f"{url}/chat/completions", json=QUESTION).status_code == 200


def test_the_command_sends_the_decision_bias(rules: ScriptedRules) -> None:
    bias = ["--decision-bias", "1.5", "--decision-token", "44"]
    with ScriptedEndpoint(["Hello."], strict=False) as endpoint:  # noqa: SIM117
        with gateway_process(endpoint, rules, *bias) as (_, url):
            httpx2.post(f"{url}/chat/completions", json=QUESTION, timeout=30)
    assert endpoint.requests[0]["logit_bias"] == {"44": 1.5}


@pytest.mark.parametrize("flag", [["--decision-bias", "1.5"], ["--decision-token", "44"]])
def test_the_decision_bias_and_its_token_need_each_other(flag: list[str]) -> None:
    result = CliRunner().invoke(app, ["gateway", "--upstream", "http://127.0.0.1:1/v1", *flag])
    assert result.exit_code == 2
    assert "need each other" in result.stderr
