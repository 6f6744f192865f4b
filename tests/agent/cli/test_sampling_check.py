"""A run checks the sampling of `transformers serve`, which may apply that of its first request to all."""

from __future__ import annotations

import json
from pathlib import Path

import httpx2
import pytest
from typer.testing import CliRunner

from agent.cli import app
from agent.episode import Episode, read_log
from tests.fakes.endpoints.scripted import ScriptedEndpoint
from tests.fakes.endpoints.shared_sampling import SharedSampling


def sample(folder: Path, base_url: str, *options: str) -> tuple[int, str, list[Episode]]:
    prompts, log = folder / "prompts.jsonl", folder / "log.jsonl"
    prompts.write_text("".join(json.dumps({"id": f"p{n}", "prompt": "Hi?"}) + "\n" for n in range(2)))
    arguments = ["run", "--prompts", str(prompts), "--log", str(log), "--rules-url", "none"]
    arguments += ["--base-url", base_url, "--model", "scripted", *options]
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, result.stderr, read_log(log).episodes if log.exists() else []


def send(server: SharedSampling, **fields: float) -> None:
    """Sends a request before the run, as a chat or a probe does."""
    body = {"model": "scripted", "messages": [{"role": "user", "content": "Hi"}], **fields}
    httpx2.post(f"{server.base_url}/chat/completions", json=body).raise_for_status()


@pytest.mark.parametrize(
    ("before", "wanted", "new_server"),
    [
        ({"temperature": 0.0}, "0.7", False),
        ({"temperature": 0.0}, "0.7", True),
        ({"temperature": 0.0}, "0.05", True),
        ({"temperature": 0.7}, "0", False),
        ({"temperature": 0.7}, "0", True),
        ({"temperature": 1.0}, "0.7", False),
        ({}, "0.7", False),
    ],
)
def test_a_run_on_a_server_with_the_sampling_of_an_earlier_request_is_refused(
    tmp_path: Path, before: dict[str, float], wanted: str, new_server: bool
) -> None:
    options = ["--temperature", wanted, *(["--new-server"] if new_server else [])]
    with SharedSampling() as server:
        send(server, **before)
        code, stderr, episodes = sample(tmp_path, server.base_url, *options)
    assert (code, episodes) == (1, [])
    assert "ignores what the request asks for" in stderr
    assert "Restart it" in stderr


@pytest.mark.parametrize("temperature", ["0.7", "1.3"])
def test_a_run_that_sends_the_first_requests_determines_the_sampling(
    tmp_path: Path, temperature: str
) -> None:
    with SharedSampling() as server:
        code, stderr, episodes = sample(
            tmp_path, server.base_url, "--new-server", "--temperature", temperature
        )
    assert code == 0, stderr
    assert set(server.temperatures) == {float(temperature)}
    assert [each.sampling_effective for each in episodes] == [{"temperature": float(temperature)}] * 2


@pytest.mark.parametrize("shared", [True, False])
def test_greedy_decoding_can_be_checked_without_the_users_word(tmp_path: Path, shared: bool) -> None:
    with SharedSampling(shared=shared) as server:
        code, stderr, episodes = sample(tmp_path, server.base_url, "--temperature", "0")
    assert code == 0, stderr
    assert server.temperatures[-2:] == [0.0, 0.0]
    assert [each.sampling_effective for each in episodes] == [{"temperature": 0.0}] * 2


@pytest.mark.parametrize("temperature", ["0", "0.05", "1"])
def test_a_server_that_samples_each_request_by_its_own_fields_is_used_at_any_time(
    tmp_path: Path, temperature: str
) -> None:
    with SharedSampling(shared=False) as server:
        send(server, temperature=0.3)
        code, stderr, episodes = sample(
            tmp_path, server.base_url, "--temperature", temperature, "--top-p", "0.9"
        )
    assert code == 0, stderr
    assert server.temperatures[-2:] == [float(temperature)] * 2
    fields = {"temperature": float(temperature), "top_p": 0.9}
    assert [each.sampling_effective for each in episodes] == [fields] * 2


def test_other_servers_get_no_request_but_the_run(tmp_path: Path) -> None:
    with ScriptedEndpoint(otherwise="Hello.") as endpoint:
        code, stderr, episodes = sample(tmp_path, endpoint.base_url)
    assert (code, len(endpoint.requests)) == (0, 2), stderr
    assert [each.sampling_effective for each in episodes] == [None, None]


def test_a_finished_run_sends_nothing(tmp_path: Path) -> None:
    with SharedSampling(shared=False) as server:
        for _ in range(2):
            code, stderr, _ = sample(tmp_path, server.base_url)
            assert code == 0, stderr
            requests = len(server.temperatures)
            server.shared = True
    assert requests == len(server.temperatures)


@pytest.mark.parametrize(("shared", "row"), [(True, "no"), (False, "yes")])
def test_a_probe_finds_out_whether_requests_share_their_sampling(shared: bool, row: str) -> None:
    with SharedSampling(shared=shared) as server:
        result = CliRunner().invoke(app, ["probe", server.base_url, "--json"])
    found = json.loads(result.stdout)
    assert found["own_sampling"] == row
    assert any("restart it before a run" in note for note in found["notes"]) == shared
