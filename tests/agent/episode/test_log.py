"""The log keeps every acknowledged episode and reports the lines that it cannot read."""

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.episode import Episode, EpisodeLog, iter_log, read_log, validate_log
from agent.episode.migrations import CURRENT_VERSION
from agent.episode.reference import episode_reference
from agent.errors import LogError
from tests.fakes.episodes.log import make_episode

ROOT = Path(__file__).resolve().parents[3]
OLD = Path(__file__).parent / "logs" / "version-1.jsonl"
REFERENCE = ROOT / "docs" / "reference" / "episode.md"


def episode(number: int = 0, **changes: Any) -> Episode:
    fields: dict[str, Any] = {
        "id": f"e{number}",
        "group_id": "g",
        "prompt_id": f"p{number}",
        "prompt": "2 + 2?",
        "model_requested": "m",
        "endpoint": "http://127.0.0.1:1/v1",
        "policy_version": "base",
        "sampling_sent": {"temperature": 1.0},
        "prompt_digest": "0" * 64,
        "messages": [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}],
        "mode": "direct",
        "stop_reason": "answer",
        "started_at": "2026-01-01T00:00:00.000+00:00",
        "seconds": 0.5,
    }
    return Episode.model_validate({**fields, **changes})


def test_what_is_appended_is_read_back_in_order(tmp_path: Path) -> None:
    with EpisodeLog(tmp_path / "new" / "log.jsonl") as log:
        for number in range(3):
            log.append(episode(number))
    reading = read_log(tmp_path / "new" / "log.jsonl")
    assert reading.episodes == [episode(number) for number in range(3)]
    assert reading.skipped == []


def test_a_log_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    EpisodeLog(tmp_path / "log.jsonl").close()
    assert stat.S_IMODE((tmp_path / "log.jsonl").stat().st_mode) == 0o600


def test_fields_that_this_version_does_not_know_survive_reading_and_writing(tmp_path: Path) -> None:
    line = json.loads(
        make_episode(consult=True, error={"boundary": "rules", "type": "x", "message": "y"}).model_dump_json()
    )
    rule = {"id": "a.b", "category": "a", "stance": "limit", "score": 0.5}
    line["consultations"][0]["rules"] = [rule]
    places = [line, *line["turns"], *line["consultations"], rule, line["limits"], line["error"]]
    for number, place in enumerate(places):
        place["novelty"] = {"x": [number, None, "é"]}
    (tmp_path / "a.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    (read,) = iter_log(tmp_path / "a.jsonl")
    changed = read.model_copy(update={"kind": "math"})
    with EpisodeLog(tmp_path / "b.jsonl") as log:
        log.append(changed)
    written = json.loads((tmp_path / "b.jsonl").read_text(encoding="utf-8"))
    assert written == {**line, "kind": "math"}


def test_a_log_of_the_first_version_is_read_and_brought_up() -> None:
    old = [json.loads(line) for line in OLD.read_text(encoding="utf-8").splitlines()]
    assert {line["schema_version"] for line in old} == {1}
    assert all("api" not in line for line in old)
    read = read_log(OLD)
    assert read.skipped == []
    assert [(e.schema_version, e.source, e.api) for e in read.episodes] == [
        (CURRENT_VERSION, "agent", "chat"),
        (CURRENT_VERSION, "gateway", "responses"),
        (CURRENT_VERSION, "gateway", "chat"),
    ]
    assert validate_log(OLD) == (3, [])
    for line, episode in zip(old, read.episodes, strict=True):
        now = json.loads(episode.model_dump_json())
        added = {"api": episode.api, "answered_without_rules": None}
        assert {**now, "schema_version": 1} == {**line, **added}


def test_a_log_of_a_later_version_is_not_read_halfway(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(json.dumps({**json.loads(make_episode().model_dump_json()), "schema_version": 99}) + "\n")
    (skipped,) = read_log(log).skipped
    assert skipped.reason.startswith(
        "written by a later version of ascl (schema_version 99, this one reads up to"
    )


def test_a_consultation_that_does_not_match_its_call_is_a_problem(tmp_path: Path) -> None:
    mixed = make_episode(consult=True)
    mixed.consultations[0].arguments = '{"situation": "another request"}'
    mixed.consultations[0].situation = "a third one"
    with EpisodeLog(tmp_path / "log.jsonl") as log:
        log.append(mixed)
    _, problems = validate_log(tmp_path / "log.jsonl")
    assert [problem.what for problem in problems] == [
        "the consultation of call c1 has other arguments than the call",
        "the consultation of call c1 has a different situation from its arguments",
    ]


def test_the_reference_page_matches_the_schema() -> None:
    assert REFERENCE.read_text(encoding="utf-8") == episode_reference(), "run `make reference`"


def test_a_truncated_last_line_is_reported_and_does_not_damage_later_lines(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    whole = episode(0).model_dump_json()
    path.write_text(f"{whole}\n{whole[:100]}", encoding="utf-8")
    assert [skipped.line for skipped in read_log(path).skipped] == [2]
    with EpisodeLog(path) as log:
        log.append(episode(1))
    reading = read_log(path)
    assert [e.id for e in reading.episodes] == ["e0", "e1"]
    (skipped,) = reading.skipped
    assert skipped.line == 2
    assert "Invalid JSON" in skipped.reason


def test_a_line_of_another_kind_is_skipped_with_the_field_that_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    wrong = {**json.loads(episode().model_dump_json()), "mode": "sometimes"}
    path.write_text(json.dumps(wrong) + "\n\n" + json.dumps({"schema_version": 99}) + "\n", encoding="utf-8")
    first, second = read_log(path).skipped
    assert first.line == 1
    assert first.reason.startswith("mode: ")
    assert second.line == 3
    assert "schema_version" in second.reason


def test_a_missing_log_is_reported_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"cannot read .*nothing\.jsonl: No such file"):
        read_log(tmp_path / "nothing.jsonl")


def test_a_full_disk_is_not_taken_for_success() -> None:
    with EpisodeLog("/dev/full") as log, pytest.raises(LogError, match="No space left"):
        log.append(episode())


def test_a_line_truncated_by_a_full_disk_does_not_damage_later_lines(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    result = subprocess.run(
        [sys.executable, "-c", FILLING, str(path)], cwd=ROOT, capture_output=True, text=True
    )
    assert result.stdout == "cut short\n", result.stderr
    reading = read_log(path)
    assert [each.id for each in reading.episodes] == ["e0", "e2"]
    assert [skipped.line for skipped in reading.skipped] == [2]


def test_several_processes_append_to_one_log_without_mixing(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), "60"], cwd=ROOT) for _ in range(3)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    reading = read_log(path)
    assert (len(reading.episodes), reading.skipped) == (180, [])


def test_killed_while_writing_the_log_holds_every_episode_that_was_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), "1000000"], cwd=ROOT, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        acknowledged = [writer.stdout.readline() for _ in range(200)]
        os.kill(writer.pid, signal.SIGKILL)
        acknowledged += writer.stdout.readlines()
    acknowledged = [line for line in acknowledged if line.endswith(b"\n")]
    held = [e.id for e in read_log(path).episodes]
    assert len(acknowledged) >= 200
    assert held[: len(acknowledged)] == [line.decode().strip() for line in acknowledged]


WRITER = """
import sys
from agent.episode import Episode
from agent.episode import EpisodeLog
fields = dict(
    group_id="g", prompt_id="p", prompt="x" * 20000, model_requested="m", endpoint="http://h",
    policy_version="v", sampling_sent={}, prompt_digest="0", messages=[], mode="direct",
    stop_reason="answer", started_at="", seconds=0,
)
with EpisodeLog(sys.argv[1]) as log:
    for number in range(int(sys.argv[2])):
        log.append(Episode(id=f"e{number}", **fields))
        sys.stdout.write(f"e{number}\\n")
        sys.stdout.flush()
"""

FILLING = (
    WRITER.partition("with EpisodeLog")[0]
    + """
import resource
from agent.errors import LogError
with EpisodeLog(sys.argv[1]) as log:
    log.append(Episode(id="e0", **fields))
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, resource.RLIM_INFINITY))
    try:
        log.append(Episode(id="e1", **fields))
    except LogError:
        print("cut short")
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    log.append(Episode(id="e2", **fields))
"""
)
