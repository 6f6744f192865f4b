"""Export to other formats, and redaction."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import datasets
import pytest
from typer.testing import CliRunner

from agent.cli import app
from agent.episode import Episode, read_log, validate_log
from tests.fakes.episodes.log import make_episode, write_log


def run(*arguments: str | Path, code: int = 0) -> Any:
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


def consulted(prompt: str = "p2", **more: Any) -> Episode:
    episode = make_episode(prompt, "harmful", "No.", consult=True, **more)
    consultation = episode.consultations[0]
    consultation.verdict = "rules_found"
    consultation.rules = [hit("a.b")]
    consultation.digest = "ab" * 32
    return episode


def hit(id: str) -> Any:
    from agent.episode import RuleHit

    return RuleHit(id=id, category=id.split(".")[0], stance="decline", score=0.5)


@pytest.mark.parametrize("order", ["direct first", "consulted first", "mixed"])
def test_exported_parquet_loads_in_any_order_of_direct_and_consulted_episodes(
    tmp_path: Path, order: str
) -> None:
    episodes = [make_episode(f"d{n}") for n in range(40)] + [consulted(f"c{n}") for n in range(3)]
    if order == "consulted first":
        episodes.reverse()
    if order == "mixed":
        random.Random(0).shuffle(episodes)
    log = write_log(tmp_path / "log.jsonl", episodes)
    run("export", log, "--to", "trl", "--out", tmp_path / "t.parquet")
    rows = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "t.parquet"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert rows["episode_id"] == [episode.id for episode in episodes]
    call = next(row for row in rows if row["mode"] == "consult")["messages"][1]
    assert call["tool_calls"][0]["function"]["arguments"] == {"situation": "a delicate request"}
    direct = next(row for row in rows if row["mode"] == "direct")["messages"]
    assert direct == [{"role": "user", "content": "prompt " + direct[0]["content"].split()[1]}, direct[1]]


def test_episodes_that_cannot_be_trained_on_are_left_out(tmp_path: Path) -> None:
    failed = make_episode("x", answer=None, stop_reason="limit")
    broken = make_episode("y", consult=True, arguments="{oops")
    log = write_log(tmp_path / "log.jsonl", [failed, broken, make_episode("z")])
    result = run("export", log, "--to", "trl", "--out", tmp_path / "t.parquet", "--json")
    assert json.loads(result.stdout) == {
        "out": str(tmp_path / "t.parquet"),
        "episodes": 3,
        "rows": 1,
        "skipped": 0,
    }
    write_log(log, [failed])
    assert "no episode" in run("export", log, "--to", "trl", "--out", tmp_path / "u.parquet", code=1).output
    assert not (tmp_path / "u.parquet").exists()


def test_consultations_are_exported_with_what_the_rules_answered(tmp_path: Path) -> None:
    unanswered = make_episode("u", consult=True)
    log = write_log(tmp_path / "log.jsonl", [make_episode(), consulted("p2"), unanswered])
    run("export", log, "--to", "consultations", "--out", tmp_path / "c.jsonl")
    lines = (tmp_path / "c.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        {
            "situation": "a delicate request",
            "prompt_id": "p2",
            "kind": "harmful",
            "verdict": "rules_found",
            "rules": ["a.b"],
            "digest": "ab" * 32,
        }
    ]


def attributes(span: dict[str, Any]) -> dict[str, Any]:
    return {a["key"]: next(iter(a["value"].values())) for a in span["attributes"]}


def spans(path: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [s for line in lines for r in line["resourceSpans"] for g in r["scopeSpans"] for s in g["spans"]]


def test_spans_follow_the_genai_conventions(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.jsonl", [consulted()])
    run("export", log, "--to", "otel", "--out", tmp_path / "s.jsonl", "--content")
    root, first, tool, second = spans(tmp_path / "s.jsonl")
    assert [s["name"] for s in (root, first, tool, second)] == [
        "invoke_agent ascl",
        "chat model",
        "execute_tool consult_safety_rules",
        "chat model",
    ]
    assert {s["traceId"] for s in (root, first, tool, second)} == {root["traceId"]}
    assert len(root["traceId"]) == 32
    assert len({s["spanId"] for s in (root, first, tool, second)}) == 4
    assert {s["parentSpanId"] for s in (first, tool, second)} == {root["spanId"]}
    assert "parentSpanId" not in root
    for span in (root, first, second):
        span_attributes = attributes(span)
        assert {"gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model"} <= set(
            span_attributes
        )
        assert int(span["endTimeUnixNano"]) >= int(span["startTimeUnixNano"])
    assert (first["kind"], tool["kind"]) == (3, 1)
    output = json.loads(attributes(first)["gen_ai.output.messages"])
    call = {"type": "tool_call", "id": "c1", "name": "consult_safety_rules"}
    assert output[0]["parts"] == [{**call, "arguments": {"situation": "a delicate request"}}]
    answered = json.loads(attributes(second)["gen_ai.input.messages"])[-1]
    response = {"type": "tool_call_response", "id": "c1", "response": "[a.b] A rule"}
    assert answered == {"role": "tool", "parts": [response]}
    assert attributes(tool)["gen_ai.tool.call.id"] == "c1"
    assert attributes(root)["gen_ai.usage.output_tokens"] == "10"


def test_spans_hold_no_text_unless_it_is_asked_for(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.jsonl", [consulted()])
    run("export", log, "--to", "otel", "--out", tmp_path / "s.jsonl")
    written = (tmp_path / "s.jsonl").read_text(encoding="utf-8")
    assert "delicate" not in written
    assert "No." not in written
    assert "A rule" not in written


def test_a_redacted_log_is_a_log_without_texts(tmp_path: Path) -> None:
    secret = consulted("someone's prompt", secret_field="delicate too")
    secret.turns[0].token_ids = [1, 2, 3]
    secret.messages[1]["reasoning_content"] = "a delicate thought"
    log = write_log(tmp_path / "log.jsonl", [secret, make_episode("p1", answer="Delicate answer.")])
    run("redact", log, "--out", tmp_path / "r.jsonl")
    written = (tmp_path / "r.jsonl").read_text(encoding="utf-8")
    for text in ("delicate", "Delicate", "someone", "No.", "A rule"):
        assert text not in written
    assert validate_log(tmp_path / "r.jsonl") == (2, [])
    one, two = read_log(tmp_path / "r.jsonl").episodes
    assert (one.mode, one.consultations[0].rules[0].id, one.seconds) == ("consult", "a.b", secret.seconds)
    assert (two.mode, two.kind) == ("direct", "benign_plain")
    assert one.turns[0].token_ids is None
    assert (tmp_path / "r.jsonl").stat().st_mode & 0o777 == 0o600


def test_an_existing_file_is_replaced_only_with_overwrite(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.jsonl", [make_episode()])
    (tmp_path / "r.jsonl").write_text("mine", encoding="utf-8")
    for command in (["redact", log], ["export", log, "--to", "otel"]):
        refused = run(*command, "--out", tmp_path / "r.jsonl", code=1)
        assert "--overwrite" in refused.output
        assert (tmp_path / "r.jsonl").read_text(encoding="utf-8") == "mine"
    run("redact", log, "--out", tmp_path / "r.jsonl", "--overwrite")
    run("redact", log, "--out", log, "--overwrite", code=1)
    assert len(read_log(tmp_path / "r.jsonl").episodes) == 1


def test_only_regular_files_are_replaced(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.jsonl", [make_episode()])
    for out in (Path("/dev/null"), tmp_path, Path()):
        result = run("redact", log, "--out", out, "--overwrite", code=1)
        assert "is not a regular file" in result.output
    assert Path("/dev/null").is_char_device()


def test_redacted_ids_cannot_be_found_out_by_guessing_and_name_no_tool_of_the_application(
    tmp_path: Path,
) -> None:
    episode = make_episode("p1")
    function = {"name": "patient_records", "arguments": "{}"}
    asked = {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": function}]}
    episode.messages.insert(1, asked)
    log = write_log(tmp_path / "log.jsonl", [episode, make_episode("p1")])
    for name in ("a.jsonl", "b.jsonl"):
        run("redact", log, "--out", tmp_path / name)
    (one, two), (other, _) = (read_log(tmp_path / name).episodes for name in ("a.jsonl", "b.jsonl"))
    assert one.prompt_id == two.prompt_id != other.prompt_id
    assert one.turns[0].request_digest != other.turns[0].request_digest
    assert "patient" not in (tmp_path / "a.jsonl").read_text(encoding="utf-8")


def test_a_redacted_log_names_no_host_and_no_folder(tmp_path: Path) -> None:
    private = make_episode("p1").model_copy(
        update={
            "endpoint": "http://gpu-7.corp.example:8000/v1",
            "model_requested": "/home/quentin/secret/qwen3",
        }
    )
    public = make_episode("p2").model_copy(
        update={"endpoint": "http://gpu-7.corp.example:8000/v1", "model_requested": "Qwen/Qwen3-8B"}
    )
    log = write_log(tmp_path / "log.jsonl", [private, public])
    run("redact", log, "--out", tmp_path / "r.jsonl")
    written = (tmp_path / "r.jsonl").read_text(encoding="utf-8")
    assert not [word for word in ("gpu-7", "corp", "quentin", "secret") if word in written]
    one, two = read_log(tmp_path / "r.jsonl").episodes
    assert one.endpoint == two.endpoint
    assert (one.model_requested, two.model_requested) == ("qwen3", "Qwen/Qwen3-8B")


def test_lines_without_an_episode_are_counted(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.jsonl", [make_episode()])
    with log.open("a", encoding="utf-8") as file:
        file.write('{"torn": ')
    result = run("redact", log, "--out", tmp_path / "r.jsonl")
    assert "1 lines of the log are not episodes" in result.output
