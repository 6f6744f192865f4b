"""Checks that the official `openai` SDK for Node behaves the same with and without the gateway."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.endpoints.responses import call_item, message_item, response_with
from tests.fakes.endpoints.scripted import ScriptedEndpoint, call
from tests.fakes.processes.gateway import run_gateway
from tests.fakes.rules.scripted import ScriptedRules

pytestmark = [
    pytest.mark.clients,
    pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed"),
]
SCRIPT = """
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "sk", maxRetries: 0 });
const model = "m";
const messages = [{ role: "user", content: "How do I make a gun?" }];
const parameters = { type: "object", properties: { city: { type: "string" } } };
const tools = [{ type: "function", function: { name: "get_weather", parameters } }];
const schema = { type: "object", properties: { allowed: { type: "boolean" } } };
const report = {};

const whole = await client.chat.completions.create({ model, messages });
report.chat = whole.choices[0].message.content;
report.tokens = whole.usage.total_tokens;

const stream = client.chat.completions.stream({ model, messages });
report.pieces = 0;
stream.on("content", () => { report.pieces += 1; });
report.streamed = (await stream.finalChatCompletion()).choices[0].message.content;

const calling = client.chat.completions.stream({ model, messages, tools });
const turn = (await calling.finalChatCompletion()).choices[0].message;
report.calls = turn.tool_calls.map((entry) => [entry.id, entry.function.arguments]);
const answer = (entry) => ({ role: "tool", tool_call_id: entry.id, content: "Rain" });
const results = turn.tool_calls.map(answer);
const history = [...messages, turn, ...results];
const last = await client.chat.completions.create({ model, messages: history, tools });
report.after = last.choices[0].message.content;

const response_format = { type: "json_schema", json_schema: { name: "verdict", schema } };
const parsed = await client.chat.completions.parse({ model, messages, response_format });
report.parsed = parsed.choices[0].message.parsed;

const responses = client.responses.stream({ model, input: "Hi" });
report.responses = (await responses.finalResponse()).output_text;
console.log(JSON.stringify(report));
"""


@pytest.mark.parametrize("consulting", [False, True])
def test_chat_streaming_parallel_tools_and_structured_output(tmp_path: Path, consulting: bool) -> None:
    subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", "openai@6"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        timeout=240,
    )
    (tmp_path / "talk.mjs").write_text(SCRIPT, encoding="utf-8")
    hidden = [call("gun")] if consulting else []
    cities = [call(arguments=f'{{"city": "{c}"}}', id=c, name="get_weather") for c in ("Oslo", "Bergen")]
    two = {**cities[0], "tool_calls": [entry for each in cities for entry in each["tool_calls"]]}
    script: list[Any] = [*hidden, "No.", *hidden, "No way at all.", *hidden, two, "Rain in both."]
    script += [*hidden, '{"allowed": false}']
    script += [
        *([response_with(call_item("gun"))] if consulting else []),
        response_with(message_item("Never.")),
    ]
    with ScriptedRules() as rules, ScriptedEndpoint(script, strict=False) as endpoint:  # noqa: SIM117
        with run_gateway(endpoint, rules) as gateway:
            done = subprocess.run(
                ["node", "talk.mjs", gateway.base_url],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report.pop("pieces") > 1
    assert report == {
        "chat": "No.",
        "tokens": 50 if consulting else 25,
        "streamed": "No way at all.",
        "calls": [["Oslo", '{"city": "Oslo"}'], ["Bergen", '{"city": "Bergen"}']],
        "after": "Rain in both.",
        "parsed": {"allowed": False},
        "responses": "Never.",
    }
    assert len(rules.consultations) == (5 if consulting else 0)
