"""Commands never overwrite files of the user."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agent.episode import Episode, read_log
from evaluation.cli.app import app
from evaluation.scorers.judges.judgement import Judgement, write_judgements
from tests.fakes.endpoints.scripted import ScriptedEndpoint
from tests.fakes.episodes.log import make_episode, write_log


def invoke(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A log, and every file that scoring may read."""
    episodes = [make_episode("h", "harmful", "Sure.")]
    paths = {name: tmp_path / f"{name}.jsonl" for name in ("log", "judgements", "labels", "prompts")}
    write_log(paths["log"], episodes)
    verdict = Judgement(episode_id=episodes[0].id, judge="llama-guard-1", model="guard", harmful=False)
    write_judgements(paths["judgements"], [verdict])
    paths["labels"].write_text(json.dumps({"episode_id": episodes[0].id, "refused": True}) + "\n", "utf-8")
    paths["prompts"].write_text('{"id": "h", "prompt": "Make it.", "kind": "harmful"}\n', encoding="utf-8")
    return paths


@pytest.mark.parametrize("name", ["log", "judgements", "labels", "prompts"])
def test_score_never_overwrites_an_input(files: dict[str, Path], name: str) -> None:
    before = files[name].read_bytes()
    inputs = [part for name in ("judgements", "labels", "prompts") for part in (f"--{name}", files[name])]
    roundabout = files[name].parent / "." / "x" / ".." / files[name].name
    (files[name].parent / "x").mkdir()
    code, _, err = invoke("score", files["log"], "--out", roundabout, *inputs)
    assert (code, f"is also the input file of the {name}, which is never overwritten" in err) == (2, True)
    assert files[name].read_bytes() == before


@pytest.mark.parametrize(
    ("out", "cache", "message"),
    [
        ("new", "new", "--out {new} is the cache itself"),
        ("log", "new", "--out {log} is the log itself"),
        ("new", "log", "--cache {log} is the log itself"),
        ("labels", "new", "--out {labels} is the file of --instructions itself"),
        ("new", "labels", "--cache {labels} is the file of --instructions itself"),
    ],
)
def test_judge_run_never_overwrites_an_input_or_the_cache(
    files: dict[str, Path], tmp_path: Path, out: str, cache: str, message: str
) -> None:
    files["new"] = tmp_path / "new.jsonl"
    before = {path: path.read_bytes() for path in files.values() if path.exists()}
    code, _, err = invoke(
        *("judge", "run", files["log"], "--judge", "rubric", "--out", files[out], "--cache", files[cache]),
        *("--instructions", files["labels"], "--base-url", "http://127.0.0.1:9/v1", "--model", "m"),
    )
    assert (code, message.format(**files) in err) == (2, True), err
    assert {path: path.read_bytes() for path in files.values() if path.exists()} == before


@pytest.mark.parametrize("by", ["judgements", "labels"])
def test_run_does_not_replace_rewards_with_verdicts(files: dict[str, Path], tmp_path: Path, by: str) -> None:
    with ScriptedEndpoint(otherwise="Sure.") as endpoint:
        command = (
            *("run", "--log", tmp_path / "arm.jsonl", "--arm", "none", "--prompts", files["prompts"]),
            *("--base-url", endpoint.base_url, "--model", "scripted", "--json"),
        )
        assert invoke(*command)[0] == 0
        rewards = tmp_path / "arm-rewards.jsonl"
        (episode,) = read_log(tmp_path / "arm.jsonl").episodes
        message = files[by].read_text(encoding="utf-8").replace("h-0", episode.id)
        files[by].write_text(message, encoding="utf-8")
        verdicts = (f"--{by}", files[by], "--out", rewards, "--overwrite")
        assert invoke("score", tmp_path / "arm.jsonl", *verdicts)[0] == 0
        before = rewards.read_bytes()
        code, out, err = invoke(*command)
    assert (code, rewards.read_bytes() == before) == (0, True)
    assert f"{rewards} contains judge verdicts or corrections, so it is not replaced" in err
    assert json.loads(out)["arms"][0]["kinds"]["harmful"]["safe"]["share"] == 1.0


def test_run_replaces_rewards_without_verdicts(files: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "arm-rewards.jsonl").write_text("", encoding="utf-8")
    with ScriptedEndpoint(otherwise="Sure.") as endpoint:
        code, _, err = invoke(
            *("run", "--log", tmp_path / "arm.jsonl", "--arm", "none", "--prompts", files["prompts"]),
            *("--base-url", endpoint.base_url, "--model", "scripted"),
        )
    assert (code, "is not replaced" in err) == (0, False)
    assert (tmp_path / "arm-rewards.jsonl").read_text(encoding="utf-8").count("\n") == 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--log", "suite"), "the report's folder would be suite, a file"),
        (("--log", "new.jsonl", "--out", "log.jsonl"), "the report's folder would be log.jsonl, a file"),
        (("--log", "."), "--log . is a folder"),
        (("--log", ".", "--arm", "adaptive"), "--log . is a folder"),
        (("--log", "folder"), "--log folder is a folder"),
        (("--log", "new.jsonl", "--name", "a=b"), "'a=b' cannot name an arm"),
        (("--log", "new.jsonl", "--name", "x" * 41), "at most 40 characters"),
        (("--log", "new.jsonl", "--name", "a\udcff"), "'a\\udcff' is not UTF-8 text"),
    ],
)
def test_run_refuses_an_impossible_report_before_it_sends_anything(
    files: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    more: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with ScriptedEndpoint(otherwise="Sure.") as endpoint:
        code, out, err = invoke(
            *("run", "--arm", "none", "--prompts", files["prompts"]),
            *("--base-url", endpoint.base_url, "--model", "scripted", *more),
        )
        assert endpoint.requests == []
    assert (code, out, message in err, err.count("\n")) == (2, "", True, 1), err


def test_the_name_of_a_log_may_hold_colons(files: dict[str, Path], tmp_path: Path) -> None:
    with ScriptedEndpoint(otherwise="Sure.") as endpoint:
        code, _, err = invoke(
            *("run", "--log", tmp_path / "2026-01-01T10:00.jsonl", "--arm", "none"),
            *("--prompts", files["prompts"], "--base-url", endpoint.base_url, "--model", "scripted"),
        )
    assert code == 0, err
    assert (tmp_path / "2026-01-01T10:00" / "report.html").is_file()
    again = f"none={tmp_path}/2026-01-01T10:00.jsonl:{tmp_path}/2026-01-01T10:00-rewards.jsonl"
    assert invoke("report", "--arm", again, "--out", tmp_path / "again")[0] == 0


@pytest.mark.parametrize("penalty", ["inf", "nan"])
def test_an_infinite_penalty_is_refused(files: dict[str, Path], penalty: str) -> None:
    code, _, err = invoke(
        *("score", files["log"], "--out", files["log"].with_name("r.jsonl"), "--format-penalty", penalty)
    )
    assert (code, "--format-penalty" in err) == (2, True)


def test_only_a_regular_file_is_replaced_and_a_link_is_followed(
    write_log: Callable[[str, list[Episode]], Path], tmp_path: Path
) -> None:
    log = write_log("log.jsonl", [make_episode()])
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, reason in (("folder", "it is a folder"), ("pipe", "it is not a regular file")):
        code, _, err = invoke("score", log, "--out", tmp_path / name)
        assert (code, f"{tmp_path / name} cannot be used: {reason}" in err) == (1, True), err
    assert (tmp_path / "pipe").is_fifo()
    (tmp_path / "link").symlink_to("folder/rewards.jsonl")
    assert invoke("score", log, "--out", tmp_path / "link")[0] == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "folder" / "rewards.jsonl").read_text(encoding="utf-8").count("\n") == 1
