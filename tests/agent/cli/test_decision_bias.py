"""`--decision-bias`: an offset on the token that opens a call, sent as `logit_bias`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agent.cli.app import app
from agent.episode import read_log
from tests.fakes.endpoints.scripted import ScriptedEndpoint
from tests.fakes.rules.scripted import ScriptedRules

BIAS = ["--decision-bias", "1.5", "--decision-token", "44"]


def run(folder: Path, endpoint: ScriptedEndpoint, rules: ScriptedRules, *options: str) -> tuple[int, str]:
    prompts = folder / "prompts.jsonl"
    prompts.write_text(json.dumps({"id": "a", "prompt": "Hi"}) + "\n", encoding="utf-8")
    services = ["--base-url", endpoint.base_url, "--model", "scripted", "--rules-url", rules.url]
    files = ["--prompts", str(prompts), "--log", str(folder / "log.jsonl")]
    result = CliRunner().invoke(app, ["run", *files, *services, *options])
    return result.exit_code, result.stderr


def test_every_request_has_the_bias_and_the_episode_records_it(rules: ScriptedRules, tmp_path: Path) -> None:
    with ScriptedEndpoint(["Hello."], accepts=["logit_bias"]) as endpoint:
        code, stderr = run(tmp_path, endpoint, rules, *BIAS)
    assert (code, endpoint.requests[0]["logit_bias"]) == (0, {"44": 1.5}), stderr
    [episode] = read_log(tmp_path / "log.jsonl").episodes
    assert episode.sampling_sent["logit_bias"] == {"44": 1.5}


def test_chat_sends_the_bias_too(rules: ScriptedRules) -> None:
    with ScriptedEndpoint(["Hello."], accepts=["logit_bias", "stream_options"]) as endpoint:
        services = ["--base-url", endpoint.base_url, "--model", "scripted", "--rules-url", rules.url]
        result = CliRunner().invoke(app, ["chat", "Hi", *services, *BIAS])
    assert result.exit_code == 0, result.stderr
    assert endpoint.requests[0]["logit_bias"] == {"44": 1.5}


def test_an_endpoint_that_refuses_the_bias_ends_the_run_with_one_sentence(
    rules: ScriptedRules, tmp_path: Path
) -> None:
    with ScriptedEndpoint(["Hello."]) as endpoint:
        code, stderr = run(tmp_path, endpoint, rules, *BIAS)
    assert (code, len(endpoint.requests)) == (1, 1)
    assert "answered 422" in stderr
    assert "It takes no logit_bias: omit --decision-bias" in stderr
    assert "Traceback" not in stderr


@pytest.mark.parametrize("options", [BIAS[:2], BIAS[2:]])
def test_the_bias_and_its_token_need_each_other(
    options: list[str], rules: ScriptedRules, tmp_path: Path
) -> None:
    with ScriptedEndpoint() as endpoint:
        code, stderr = run(tmp_path, endpoint, rules, *options)
    assert (code, endpoint.requests) == (2, [])
    assert "need each other" in stderr


def test_the_responses_api_takes_no_bias(rules: ScriptedRules, tmp_path: Path) -> None:
    with ScriptedEndpoint() as endpoint:
        code, stderr = run(tmp_path, endpoint, rules, "--api", "responses", *BIAS)
    assert (code, endpoint.requests) == (1, [])
    assert "does not support logit_bias" in stderr
