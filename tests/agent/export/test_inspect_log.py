"""Export to Inspect, checked with Inspect's own reader and viewer."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from inspect_ai.log import EvalSample, read_eval_log
from inspect_ai.model import ContentReasoning, ContentText
from typer.testing import CliRunner

from agent.cli import app
from agent.episode import Episode
from tests.fakes.episodes.log import make_episode, write_log
from tests.fakes.processes.ports import free_port


def export(
    tmp_path: Path, episodes: list[Episode], *more: str | Path, code: int = 0, name: str = "l.eval"
) -> Any:
    log = write_log(tmp_path / "log.jsonl", episodes)
    options = ["export", log, "--to", "inspect", "--out", tmp_path / name, *more]
    completed = CliRunner().invoke(app, [*map(str, options)])
    assert completed.exit_code == code, completed.output
    return completed


def samples(tmp_path: Path, episodes: list[Episode], *more: str | Path) -> list[EvalSample]:
    export(tmp_path, episodes, *more)
    log_samples = read_eval_log(str(tmp_path / "l.eval")).samples
    assert log_samples is not None
    return log_samples


def reward(episode: Episode, total: float | None, **more: Any) -> str:
    line = {"episode_id": episode.id, "total": total, "scores": {"outcome": total, "format": 0.0}, **more}
    return json.dumps({"schema_version": 1, "label": "refusal", **line}) + "\n"


def test_messages_calls_and_results_are_those_of_the_episode(tmp_path: Path) -> None:
    episode = make_episode("p", "harmful", "No.", consult=True)
    (sample,) = samples(tmp_path, [episode])
    assert [message.role for message in sample.messages] == ["user", "assistant", "tool", "assistant"]
    asked, result = sample.messages[1], sample.messages[2]
    assert [(call.id, call.function, call.arguments) for call in asked.tool_calls] == [
        ("c1", "consult_safety_rules", {"situation": "a delicate request"})
    ]
    assert (result.tool_call_id, result.function, result.text) == (
        "c1",
        "consult_safety_rules",
        "[a.b] A rule",
    )
    assert sample.output.completion == sample.messages[-1].text == "No."
    assert [event.event for event in sample.events] == ["model", "tool", "model"]
    assert (sample.id, sample.epoch, sample.input) == ("p", 1, "prompt p")


def test_ids_mode_and_digests_are_in_the_metadata(tmp_path: Path) -> None:
    episode = make_episode("p", "harmful", "No.", consult=True)
    (sample,) = samples(tmp_path, [episode])
    for name in ("group_id", "prompt_id", "kind", "mode", "stop_reason", "policy_version", "rulebook_digest"):
        assert sample.metadata[name] == getattr(episode, name)
    assert sample.metadata["episode_id"] == sample.uuid == episode.id
    assert sample.metadata["consultations"][0]["situation"] == "a delicate request"


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning", "thinking"])
def test_a_thought_is_shown_as_one_and_keeps_its_field(tmp_path: Path, field: str) -> None:
    episode = make_episode("p", answer="No.")
    episode.messages[-1] |= {field: "Hm.", "reasoning_details": [{"data": "opaque"}]}
    (sample,) = samples(tmp_path, [episode])
    thought, text = sample.messages[-1].content
    assert isinstance(thought, ContentReasoning)
    assert (thought.reasoning, thought.internal) == ("Hm.", {"field": field})
    assert isinstance(text, ContentText)
    assert text.text == "No."
    assert sample.messages[-1].metadata == {"reasoning_details": [{"data": "opaque"}]}


def test_malformed_arguments_are_kept_word_for_word(tmp_path: Path) -> None:
    (sample,) = samples(tmp_path, [make_episode("p", consult=True, arguments='{"situation": oops')])
    call = sample.messages[1].tool_calls[0]
    assert call.arguments == {}
    assert call.parse_error.endswith('{"situation": oops')


def test_rewards_are_scores_and_what_could_not_be_judged_is_unscored_not_zero(tmp_path: Path) -> None:
    one, two = make_episode("a", "harmful", "No."), make_episode("b", "harmful", "Hm.")
    rewards = tmp_path / "r.jsonl"
    rewards.write_text(reward(one, 0.8) + reward(two, None, excluded="partial refusal", label=None), "utf-8")
    first, second = samples(tmp_path, [one, two], "--rewards", rewards)
    assert {name: score.value for name, score in first.scores.items()} == {
        "reward": 0.8,
        "outcome": 0.8,
        "format": 0.0,
        "answered": "refusal",
    }
    assert math.isnan(second.scores["reward"].value)
    assert second.scores["reward"].explanation == "partial refusal"
    results = read_eval_log(str(tmp_path / "l.eval")).results
    means = {score.name: score for score in results.scores}
    assert means["reward"].metrics["mean"].value == 0.8
    assert (means["reward"].scored_samples, means["reward"].unscored_samples) == (1, 1)


def test_errors_limits_and_samples_are_told_apart(tmp_path: Path) -> None:
    fault = {"boundary": "endpoint", "type": "http_500", "message": "it broke"}
    failed = make_episode("a", answer=None, stop_reason="error", error=fault)
    again, other = make_episode("a"), make_episode("a", sample=1, answer=None, stop_reason="limit")
    lost = make_episode("b", answer=None, stop_reason="error", error=fault)
    log_samples = {(s.id, s.epoch): s for s in samples(tmp_path, [failed, again, other, lost])}
    assert set(log_samples) == {("a", 1), ("a", 2), ("b", 1)}
    assert log_samples["a", 1].error is None
    assert log_samples["a", 2].limit is not None
    assert log_samples["b", 1].error.message == "it broke"


def test_the_same_prompt_through_a_gateway_stands_once_for_each_time(tmp_path: Path) -> None:
    episodes = [make_episode("a", answer=f"Answer {n}.").model_copy(update={"id": f"e{n}"}) for n in range(3)]
    assert [(s.epoch, s.uuid) for s in samples(tmp_path, episodes)] == [(1, "e0"), (2, "e1"), (3, "e2")]


def test_json_is_written_for_a_name_in_json(tmp_path: Path) -> None:
    export(tmp_path, [make_episode()], name="l.json")
    assert json.loads((tmp_path / "l.json").read_text("utf-8"))["eval"]["model"] == "model"
    assert (tmp_path / "l.json").stat().st_mode & 0o777 == 0o600


def test_a_mistake_is_one_sentence(tmp_path: Path) -> None:
    assert ".eval or .json" in export(tmp_path, [make_episode()], name="l.log", code=1).output
    (tmp_path / "r.jsonl").write_text("no reward\n", "utf-8")
    assert (
        "is not a reward"
        in export(tmp_path, [make_episode()], "--rewards", tmp_path / "r.jsonl", code=1).output
    )
    assert "no episode" in export(tmp_path, [], code=1).output
    assert not (tmp_path / "l.eval").exists()


def test_inspects_own_viewer_lists_the_log_and_gives_it_whole(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    export(
        tmp_path, [make_episode("a"), make_episode("b", "harmful", "No.", consult=True)], name="logs/l.eval"
    )
    port = free_port()
    command = [
        "-m",
        "inspect_ai",
        "view",
        "--log-dir",
        str(folder),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    # A separate home, because Inspect tracks running evaluations in the user's folders.
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "data")}
    with (tmp_path / "view.log").open("wb") as output:
        process = subprocess.Popen([sys.executable, *command], stdout=output, stderr=output, env=environment)
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as web:
            deadline = time.monotonic() + 60
            while True:
                assert process.poll() is None, (tmp_path / "view.log").read_text("utf-8")
                try:
                    listed = web.get("/api/logs").json()["files"]
                    break
                except httpx2.TransportError:
                    assert time.monotonic() < deadline
                    time.sleep(0.2)
            assert [file["task"] for file in listed] == ["ascl"]
            whole = web.get(f"/api/logs/{quote(listed[0]['name'], safe='')}").json()
    finally:
        process.terminate()
        process.wait(20)
    assert [sample["metadata"]["mode"] for sample in whole["samples"]] == ["direct", "consult"]
    assert whole["samples"][1]["messages"][2]["content"] == "[a.b] A rule"
