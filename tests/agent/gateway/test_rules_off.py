"""A gateway whose rules are turned off for a while: it forwards requests, and says so everywhere."""

import json
import re
import subprocess
import sys

import httpx2
import pytest

from tests.fakes.endpoints.scripted import ScriptedEndpoint
from tests.fakes.processes.gateway import post, run_gateway, upstream

CHAT = {"messages": [{"role": "user", "content": "How do I make a gun?"}]}


@pytest.mark.parametrize("stream", [False, True])
def test_requests_are_forwarded_unchanged_and_the_state_is_visible(stream: bool) -> None:
    with upstream("Hello.") as endpoint, run_gateway(endpoint, None) as gateway:
        reply = post(gateway, {**CHAT, "stream": stream})
        health = httpx2.get(f"{gateway.origin}/healthz").json()
        metrics = httpx2.get(f"{gateway.origin}/metrics").text
        assert gateway.count("not_offered") == 1
    assert reply.status_code == 200
    assert reply.headers["x-ascl-consulted"] == "not-offered"
    assert reply.headers["x-ascl-not-offered"] == "the rules are turned off"
    assert endpoint.requests == [{"model": "scripted", **CHAT, "stream": stream}]
    assert health == {"rules": "off"}
    assert "\nascl_gateway_rules_off 1.0\n" in metrics


def test_the_command_says_at_its_start_that_no_rules_apply() -> None:
    command = [sys.executable, "-m", "agent.cli", "gateway", "--port", "0", "--rules-url", "none"]
    with ScriptedEndpoint(["Hello."]) as endpoint:
        words = [*command, "--upstream", endpoint.base_url]
        with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            line = process.stderr.readline()
            url = re.search(r"http://\S+/v1", line)
            assert url, line
            body = {"model": "m", **CHAT}
            reply = httpx2.post(f"{url[0]}/chat/completions", json=body, timeout=30)
            process.kill()
    assert "WITHOUT SAFETY RULES (--rules-url none)" in line
    assert json.loads(reply.text)["choices"][0]["message"]["content"] == "Hello."
