"""The audit log: callers, times and returned rules; question texts only if the operator enables them."""

from __future__ import annotations

import datetime
import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rule_server import ConsultResponse, Settings, StartError
from rule_server.api.auth import new_token
from rule_server.cli import app
from rule_server.observability import AuditLog
from rule_server.observability.pii import mask
from tests.fakes.rules.toy_service import QUESTION, serve_toy

ANSWER = ConsultResponse.model_validate(
    {
        "verdict": "no_applicable_rule",
        "rules": [],
        "threshold": 0.1,
        "rulebook": {"name": "x", "version": "1.0.0", "digest": "d" * 64},
    }
)


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_each_consultation_is_logged_before_its_answer_and_without_the_question(tmp_path: Path) -> None:
    tokens, audit = tmp_path / "tokens.jsonl", tmp_path / "audit.jsonl"
    token = new_token(tokens, "ci-agent", ["consult"], "now")
    with serve_toy(tmp_path, tokens_file=tokens, audit_file=audit) as served:
        headers = {"Authorization": f"Bearer {token}"}
        answer = served.client.post("/v1/consult", json=QUESTION, headers=headers).json()
        [line] = lines(audit)
        assert list(line) == ["at", "caller", "digest", "verdict", "rules", "length", "hmac"]
        assert line["caller"] == "ci-agent"
        assert line["digest"] == answer["rulebook"]["digest"]
        assert [rule["id"] for rule in line["rules"]] == [rule["id"] for rule in answer["rules"]]
        assert line["rules"][0]["score"] == pytest.approx(answer["rules"][0]["score"], abs=1e-4)
        assert line["length"] == len(QUESTION["situation"])
        call: dict[str, Any] = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/call",
            "params": {"name": "consult_safety_rules", "arguments": QUESTION},
        }
        for revision in ("2025-06-18", "2025-11-25"):
            mcp = {"mcp-protocol-version": revision, "Accept": "application/json, text/event-stream"}
            assert served.client.post("/mcp", json=call, headers=headers | mcp).status_code == 200
        current = {"mcp-protocol-version": "2026-07-28", "Mcp-Method": "tools/call"}
        current |= {"Mcp-Name": "consult_safety_rules", "Accept": "application/json, text/event-stream"}
        key = "io.modelcontextprotocol"
        call["params"]["_meta"] = {
            f"{key}/protocolVersion": "2026-07-28",
            f"{key}/clientInfo": {"name": "x", "version": "1"},
            f"{key}/clientCapabilities": {},
        }
        assert served.client.post("/mcp", json=call, headers=headers | current).status_code == 200
        assert [(each["caller"], each["hmac"]) for each in lines(audit)] == [("ci-agent", line["hmac"])] * 4
    assert "virus" not in audit.read_text()
    assert token not in audit.read_text()
    assert audit.stat().st_mode & 0o777 == 0o600
    assert audit.with_name("audit.jsonl.key").stat().st_mode & 0o777 == 0o600


def test_the_hash_depends_on_the_key_and_survives_restarts(tmp_path: Path) -> None:
    hashes = []
    for name in ("one", "one", "two"):
        settings = Settings(audit_file=tmp_path / f"{name}.jsonl")
        log = AuditLog(settings)
        log.write("a question", ANSWER)
        log.close()
        hashes.append(lines(tmp_path / f"{name}.jsonl")[-1]["hmac"])
    assert hashes[0] == hashes[1] != hashes[2]


def test_logged_questions_are_masked_unless_the_operator_turns_it_off(tmp_path: Path) -> None:
    question = "may I mail ann@example.org?"
    for masked, logged in ((True, "may I mail [email]?"), (False, question)):
        file = tmp_path / f"{masked}.jsonl"
        log = AuditLog(Settings(audit_file=file, audit_text=True, audit_mask=masked))
        log.write(question, ANSWER)
        log.close()
        assert lines(file)[0]["situation"] == logged


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("call +49 (0)30 123-4567 now", "call [phone] now"),
        ("0171 2345678", "[phone]"),
        ("pay with 4111 1111 1111 1111.", "pay with [card]."),
        ("from 192.168.0.17 and 2001:db8::1", "from [ip] and [ip]"),
        ("a.b+c@mail.example.co.uk!", "[email]!"),
        ("http://10.0.0.5:8080/x, 8.8.8.8:53", "http://[ip]:8080/x, [ip]:53"),
        ("server 10.0.0.5: down, 10.0.0.6.", "server [ip]: down, [ip]."),
        (
            "on 2026-11-25 at 10:30 they paid 1234567 for 3.14",
            "on 2026-11-25 at 10:30 they paid 1234567 for 3.14",
        ),
        *(
            (f"pay 4111{sign}1111{sign}1111{sign}1111, call 0171{sign}2345678", "pay [card], call [phone]")
            for sign in "\u00a0\u202f\u2007\u2009\u3000\u2010\u2011\u2012\u2013\u2014\u2212\u00ad\u200b\ufe63"
        ),
        ("4111 \u2013 1111 \u2013 1111 \u2013 1111", "[card]"),
        ("4111 1111 1111 1111 12/27", "[card] 12/27"),
        ("\uff14\uff11\uff11\uff11 1111 1111 1111", "[card]"),
        ("\u202a+49 171 2345678\u202c", "\u202a[phone]"),
        ("ann\uff20example.org", "[email]"),
        ("::ffff:192.168.0.17 and 64:ff9b::192.0.2.1.", "[ip] and [ip]."),
        ("2001:db8:1:2:3:4:192.0.2.1 caf\u00e9", "[ip] caf\u00e9"),
        (
            "pages 10\u201320 \u2013 \U0001f468\u200d\U0001f469 na\u00efve",
            "pages 10\u201320 \u2013 \U0001f468\u200d\U0001f469 na\u00efve",
        ),
        ("std::vector and version 1.2.3", "std::vector and version 1.2.3"),
    ],
)
def test_personal_data_is_recognised_by_its_form(text: str, masked: str) -> None:
    assert mask(text) == masked


def test_a_torn_line_does_not_corrupt_the_next_one(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    settings = Settings(audit_file=file)
    log = AuditLog(settings)
    log.write("one", ANSWER)
    log.close()
    with file.open("a") as torn:
        torn.write('{"at":"2026')
    log = AuditLog(settings)
    log.write("two", ANSWER)
    log.close()
    first, second, third = file.read_text().splitlines()
    assert (json.loads(first)["length"], second, json.loads(third)["length"]) == (3, '{"at":"2026', 3)


def test_no_line_outlives_the_retention_period(tmp_path: Path) -> None:
    file, start = tmp_path / "audit.jsonl", datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)
    now = [start]
    log = AuditLog(Settings(audit_file=file, audit_retention_days=3), clock=lambda: now[0])
    for hour in range(0, 24 * 8, 6):
        now[0] = start + datetime.timedelta(hours=hour)
        log.write("x", ANSWER)
        times = [line["at"] for path in tmp_path.glob("audit*.jsonl") for line in lines(path)]
        oldest = min(datetime.datetime.fromisoformat(at) for at in times)
        assert now[0] - oldest < datetime.timedelta(days=3)
    assert len(list(tmp_path.glob("audit*.jsonl"))) == 3
    now[0] += datetime.timedelta(days=30)
    log.rotate()
    assert [path.read_text() for path in tmp_path.glob("audit*.jsonl")] == [""]
    log.close()


def test_files_are_bounded_in_size_and_number(tmp_path: Path) -> None:
    log = AuditLog(Settings(audit_file=tmp_path / "audit.jsonl", audit_max_bytes=4096, audit_files=2))
    for _ in range(200):
        log.write("x", ANSWER)
    log.close()
    files = list(tmp_path.glob("audit*.jsonl"))
    assert len(files) == 3
    assert max(path.stat().st_size for path in files) <= 4096
    assert all(line["length"] == 1 for path in files for line in lines(path))


def test_a_consultation_that_cannot_be_logged_is_not_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with serve_toy(tmp_path, audit_file=tmp_path / "audit.jsonl") as served:
        monkeypatch.setattr("rule_server.observability.audit.os.write", full)
        answer = served.client.post("/v1/consult", json=QUESTION)
        assert answer.status_code == 503
        assert answer.json() == {"detail": "the audit log cannot be written, so nothing is answered"}
        monkeypatch.undo()
        assert served.client.post("/v1/consult", json=QUESTION).status_code == 200


def test_a_new_file_is_opened_when_the_old_one_is_moved(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    with serve_toy(tmp_path, audit_file=file) as served:
        for _ in range(3):
            assert served.client.post("/v1/consult", json=QUESTION).status_code == 200
            file.rename(tmp_path / f"moved-{len(list(tmp_path.glob('moved-*')))}")
    assert [len(lines(tmp_path / f"moved-{number}")) for number in range(3)] == [1, 1, 1]


def test_logging_resumes_when_a_missing_folder_returns(tmp_path: Path) -> None:
    folder, away = tmp_path / "log", tmp_path / "away"
    with serve_toy(tmp_path, audit_file=folder / "audit.jsonl") as served:
        statuses = [served.client.post("/v1/consult", json=QUESTION).status_code]
        folder.rename(away)
        statuses += [served.client.post("/v1/consult", json=QUESTION).status_code for _ in range(3)]
        assert served.client.get("/v1/rules").status_code == 200  # no socket was closed by mistake
        folder.mkdir()
        statuses += [served.client.post("/v1/consult", json=QUESTION).status_code for _ in range(2)]
    assert statuses == [200, 503, 503, 503, 200, 200]
    assert [len(lines(each / "audit.jsonl")) for each in (away, folder)] == [1, 2]


def test_old_files_are_removed_even_if_the_current_one_is_missing(tmp_path: Path) -> None:
    file, now = tmp_path / "audit.jsonl", [datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)]
    log = AuditLog(Settings(audit_file=file, audit_retention_days=3), clock=lambda: now[0])
    for _ in range(2):
        log.write("x", ANSWER)
        now[0] += datetime.timedelta(days=1)
    file.unlink()
    now[0] += datetime.timedelta(days=30)
    log.rotate()
    assert [path.read_text() for path in tmp_path.glob("audit*.jsonl")] == [""]
    log.close()


def test_a_log_that_cannot_be_opened_prevents_the_start(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="cannot be written"):
        AuditLog(Settings(audit_file=Path("/proc/none/audit.jsonl")))
    key = tmp_path / "key"
    key.write_text("short")
    with pytest.raises(StartError, match="shorter than 16 bytes"):
        AuditLog(Settings(audit_file=tmp_path / "audit.jsonl", audit_key_file=key))


def fail_to_rename(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    """Makes a file behave as a mount point, which cannot be renamed."""
    rename = Path.rename

    def busy(path: Path, target: Path) -> Path:
        if path == file:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", busy)


def test_a_file_that_cannot_be_renamed_is_rotated_by_copying(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "audit.jsonl"
    fail_to_rename(monkeypatch, file)
    with serve_toy(tmp_path, audit_file=file, audit_max_bytes=4096) as served:
        inode = file.stat().st_ino
        for _ in range(40):
            assert served.client.post("/v1/consult", json=QUESTION).status_code == 200
        assert served.client.get("/readyz").json()["degraded"] == []
    assert file.stat().st_ino == inode
    files = list(tmp_path.glob("audit*.jsonl"))
    assert len(files) > 2
    assert sum(len(lines(each)) for each in files) == 40
    assert max(each.stat().st_size for each in files) <= 4096


def test_a_log_that_could_not_be_rotated_prevents_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "audit.jsonl"
    settings = Settings(audit_file=file)
    AuditLog(settings).close()
    fail_to_rename(monkeypatch, file)
    opened = os.open

    def read_only(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT and not Path(path).exists():
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return opened(path, flags, mode)

    monkeypatch.setattr("rule_server.observability.audit.os.open", read_only)
    with pytest.raises(StartError, match=r"could not be rotated .*let the service write the folder"):
        AuditLog(settings)


def test_a_failed_rotation_is_reported_and_consultations_are_still_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "audit.jsonl"
    with serve_toy(tmp_path, audit_file=file, audit_max_bytes=4096) as served:
        fail_to_rename(monkeypatch, file)
        monkeypatch.setattr(AuditLog, "_copy_lines", lambda log, path: list(Path("/none").iterdir()))
        for _ in range(40):
            assert served.client.post("/v1/consult", json=QUESTION).status_code == 200
        ready = served.client.get("/readyz")
        assert ready.status_code == 200
        assert "cannot be rotated" in ready.json()["degraded"][0]
    assert len(lines(file)) == 40


def test_lines_behind_a_link_are_removed_after_the_retention_period(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    link, target = tmp_path / "audit.jsonl", tmp_path / "disk" / "log.jsonl"
    link.symlink_to(target)
    now = [datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)]
    log = AuditLog(Settings(audit_file=link, audit_text=True), clock=lambda: now[0])
    log.write("an old question", ANSWER)
    now[0] += datetime.timedelta(days=1)
    log.rotate()
    [rotated] = [path for path in target.parent.iterdir() if path != target]
    os.link(rotated, tmp_path / "second-name")
    now[0] += datetime.timedelta(days=60)
    log.rotate()
    log.close()
    assert link.is_symlink()
    assert "old question" not in "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "first",
    [
        '{"at":"2026',
        "",
        "\x00" * 5000,
        '{"at":"2026-13-45T00:00:00.000Z","x":1}',
        "x" * (1 << 20),
        '{"at":"2099-01-01T00:00:00.000Z"}',
    ],
)
def test_retention_applies_after_daily_restarts_whatever_the_first_line(tmp_path: Path, first: str) -> None:
    file, start = tmp_path / "audit.jsonl", datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)
    now = [start]
    file.write_text(first + "\n")
    settings = Settings(audit_file=file, audit_retention_days=3)
    for day in range(12):
        now[0] = start + datetime.timedelta(hours=20 * day)
        log = AuditLog(settings, clock=lambda: now[0])
        log.write("x", ANSWER)
        log.close()
        os.utime(file)  # each restart changes the file
    text = "".join(path.read_text() for path in tmp_path.glob("audit*.jsonl"))
    times = [datetime.datetime.fromisoformat(line[7:31]) for line in text.splitlines() if '"caller"' in line]
    assert now[0] - min(times) < datetime.timedelta(days=3)


def test_a_pipe_as_the_log_is_never_renamed(tmp_path: Path) -> None:
    pipe, now = tmp_path / "audit", [datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)]
    os.mkfifo(pipe)
    key = tmp_path / "key"
    key.write_text("k" * 32)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    log = AuditLog(Settings(audit_file=pipe, audit_key_file=key), clock=lambda: now[0])
    for _ in range(3):
        log.write("x", ANSWER)
        now[0] += datetime.timedelta(days=2)
    log.close()
    assert len(os.read(reader, 100_000).splitlines()) == 3
    os.close(reader)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audit", "key"]


def test_an_artefact_that_cannot_be_written_is_reported_from_the_start(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with serve_toy(tmp_path, artefact=blocked / "artefact") as served:
        ready = served.client.get("/readyz")
        assert ready.status_code == 200
        assert "edited rules are not stored" in ready.json()["degraded"][0]


def test_a_request_for_the_nearest_rules_is_logged_but_is_no_consultation(tmp_path: Path) -> None:
    audit = tmp_path / "audit.jsonl"
    with serve_toy(tmp_path, audit_file=audit, threshold=2.0) as served:
        answer = served.client.post("/v1/nearest", json=QUESTION).json()
        assert served.client.post("/v1/consult", json=QUESTION).json()["rules"] == []
        audit.rename(tmp_path / "moved.jsonl")
        audit.mkdir()
        assert served.client.post("/v1/nearest", json=QUESTION).status_code == 503
    nearest, consult = lines(tmp_path / "moved.jsonl")
    assert nearest["hmac"] == consult["hmac"]
    assert (nearest["request"], nearest["verdict"]) == ("nearest", "no_applicable_rule")
    assert [rule["id"] for rule in nearest["rules"]] == [rule["id"] for rule in answer["rules"]]
    assert "request" not in consult
    command = ["stats", str(tmp_path / "moved.jsonl"), "--rules", str(tmp_path / "rules"), "--json"]
    done = CliRunner().invoke(app, [*command, "--artefact", str(tmp_path / "none")], catch_exceptions=False)
    assert json.loads(done.stdout)["consultations"] == 1


def test_stats_reads_an_audit_log_without_questions(tmp_path: Path) -> None:
    audit = tmp_path / "audit.jsonl"
    with serve_toy(tmp_path, audit_file=audit) as served:
        served.client.post("/v1/consult", json=QUESTION | {"top_k": 1})
    command = ["stats", str(audit), "--rules", str(tmp_path / "rules"), "--json"]
    done = CliRunner().invoke(app, [*command, "--artefact", str(tmp_path / "none")], catch_exceptions=False)
    counted = json.loads(done.stdout)
    assert counted["consultations"] == 1
    assert sum(rule["consulted"] for rule in counted["rules"]) == len(lines(audit)[0]["rules"])
    assert counted["bad_lines"] == []
