"""What a command writes never takes the place of what its user keeps."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agent.episode import Episode, read_log
from evaluation.cli import app
from evaluation.scorers.judges.judgement import Judgement, write_judgements
from tests.fakes.endpoints.scripted import ScriptedEndpoint
from tests.fakes.episodes.log import make_episode, write_log


def invoke(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A log, and every file that scoring it may read."""
    episodes = [make_episode("h", "harmful", "Sure.")]
    found = {name: tmp_path / f"{name}.jsonl" for name in ("log", "judgements", "labels", "prompts")}
    write_log(found["log"], episodes)
    verdict = Judgement(episode_id=episodes[0].id, judge="llama-guard-1", model="guard", harmful=False)
    write_judgements(found["judgements"], [verdict])
    found["labels"].write_text(json.dumps({"episode_id": episodes[0].id, "refused": True}) + "\n", "utf-8")
    found["prompts"].write_text('{"id": "h", "prompt": "Make it.", "kind": "harmful"}\n', encoding="utf-8")
    return found


@pytest.mark.parametrize("taken", ["log", "judgements", "labels", "prompts"])
def test_score_overwrites_nothing_that_it_reads(files: dict[str, Path], taken: str) -> None:
    before = files[taken].read_bytes()
    inputs = [part for name in ("judgements", "labels", "prompts") for part in (f"--{name}", files[name])]
    roundabout = files[taken].parent / "." / "x" / ".." / files[taken].name
    (files[taken].parent / "x").mkdir()
    code, _, err = invoke("score", files["log"], "--out", roundabout, *inputs)
    assert (code, f"is the file of the {taken} itself, which is never overwritten" in err) == (2, True)
    assert files[taken].read_bytes() == before


@pytest.mark.parametrize(
    ("out", "cache", "said"),
    [
        ("new", "new", "--out {new} is the cache itself"),
        ("log", "new", "--out {log} is the log itself"),
        ("new", "log", "--cache {log} is the log itself"),
        ("labels", "new", "--out {labels} is the file of --instructions itself"),
        ("new", "labels", "--cache {labels} is the file of --instructions itself"),
    ],
)
def test_judge_run_overwrites_neither_its_inputs_nor_the_replies_that_were_paid_for(
    files: dict[str, Path], tmp_path: Path, out: str, cache: str, said: str
) -> None:
    files["new"] = tmp_path / "new.jsonl"
    before = {path: path.read_bytes() for path in files.values() if path.exists()}
    code, _, err = invoke(
        *("judge", "run", files["log"], "--judge", "rubric", "--out", files[out], "--cache", files[cache]),
        *("--instructions", files["labels"], "--base-url", "http://127.0.0.1:9/v1", "--model", "m"),
    )
    assert (code, said.format(**files) in err) == (2, True), err
    assert {path: path.read_bytes() for path in files.values() if path.exists()} == before


@pytest.mark.parametrize("by", ["judgements", "labels"])
def test_run_keeps_rewards_that_a_judge_or_a_person_decided(
    files: dict[str, Path], tmp_path: Path, by: str
) -> None:
    with ScriptedEndpoint(otherwise="Sure.") as endpoint:
        command = (
            *("run", "--log", tmp_path / "arm.jsonl", "--arm", "none", "--prompts", files["prompts"]),
            *("--base-url", endpoint.base_url, "--model", "scripted", "--json"),
        )
        assert invoke(*command)[0] == 0
        rewards = tmp_path / "arm-rewards.jsonl"
        (episode,) = read_log(tmp_path / "arm.jsonl").episodes
        said = files[by].read_text(encoding="utf-8").replace("h-0", episode.id)
        files[by].write_text(said, encoding="utf-8")
        assert invoke("score", tmp_path / "arm.jsonl", f"--{by}", files[by], "--out", rewards)[0] == 0
        before = rewards.read_bytes()
        code, out, err = invoke(*command)
    assert (code, rewards.read_bytes() == before) == (0, True)
    assert f"{rewards} holds verdicts of a judge or of people, so it is not replaced" in err
    assert json.loads(out)["arms"][0]["kinds"]["harmful"]["safe"]["share"] == 1.0


def test_rewards_that_no_judge_touched_are_scored_again(files: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "arm-rewards.jsonl").write_text("", encoding="utf-8")
    with ScriptedEndpoint(otherwise="Sure.") as endpoint:
        code, _, err = invoke(
            *("run", "--log", tmp_path / "arm.jsonl", "--arm", "none", "--prompts", files["prompts"]),
            *("--base-url", endpoint.base_url, "--model", "scripted"),
        )
    assert (code, "is not replaced" in err) == (0, False)
    assert (tmp_path / "arm-rewards.jsonl").read_text(encoding="utf-8").count("\n") == 1


@pytest.mark.parametrize(
    ("more", "said"),
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
def test_run_says_that_it_could_not_report_before_anything_is_paid(
    files: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    more: tuple[str, ...],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with ScriptedEndpoint(otherwise="Sure.") as endpoint:
        code, out, err = invoke(
            *("run", "--arm", "none", "--prompts", files["prompts"]),
            *("--base-url", endpoint.base_url, "--model", "scripted", *more),
        )
        assert endpoint.requests == []
    assert (code, out, said in err, err.count("\n")) == (2, "", True, 1), err


def test_a_log_may_be_named_by_the_time(files: dict[str, Path], tmp_path: Path) -> None:
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
def test_a_penalty_without_an_amount_is_refused(files: dict[str, Path], penalty: str) -> None:
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
    for name, why in (("folder", "it is a folder"), ("pipe", "it is not a regular file")):
        code, _, err = invoke("score", log, "--out", tmp_path / name)
        assert (code, f"{tmp_path / name} cannot be used: {why}" in err) == (1, True), err
    assert (tmp_path / "pipe").is_fifo()
    (tmp_path / "link").symlink_to("folder/rewards.jsonl")
    assert invoke("score", log, "--out", tmp_path / "link")[0] == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "folder" / "rewards.jsonl").read_text(encoding="utf-8").count("\n") == 1
