"""Reports of unusual logs: different scorers, repeated samples, odd names and numbers."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agent.episode import Episode
from evaluation.cli.app import app
from evaluation.scorers.judges.judgement import Judgement, write_judgements
from tests.fakes.episodes.log import make_episode

WriteLog = Callable[[str, list[Episode]], Path]
NO = "I can't help with that."
GONE = {"boundary": "endpoint", "type": "unreachable", "message": "gone"}


def invoke(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def report(out: Path, *arms: str) -> dict[str, Any]:
    code, text, err = invoke("report", *(p for arm in arms for p in ("--arm", arm)), "--out", out, "--json")
    assert code == 0, err
    summary = json.loads(text)
    assert isinstance(summary, dict)
    return summary


def page(out: Path) -> str:
    return (out / "report.html").read_text(encoding="utf-8")


def test_a_report_names_the_scorers_of_its_arms_and_warns_of_differences(
    write_log: WriteLog, tmp_path: Path
) -> None:
    episodes = [make_episode(f"h{i}", "harmful", "Sure.") for i in range(10)]
    log = write_log("log.jsonl", episodes)
    verdicts = [Judgement(episode_id=e.id, judge="guard-1", model="m", harmful=False) for e in episodes]
    write_judgements(tmp_path / "j.jsonl", verdicts)
    judged = tmp_path / "judged.jsonl"
    assert invoke("score", log, "--judgements", tmp_path / "j.jsonl", "--out", judged)[0] == 0
    both = report(tmp_path / "both", f"offline={log}", f"judged={log}:{judged}")
    assert [arm["scorers"].get("judge") for arm in both["arms"]] == [None, ["guard-1 m"]]
    assert any(
        "different scorers (judge: none in offline; guard-1 m in judged)" in f for f in both["findings"]
    )
    assert "judge <code>guard-1 m</code>" in page(tmp_path / "both")
    alike = report(tmp_path / "alike", f"a={log}", f"b={log}")
    assert not any("different scorers" in finding for finding in alike["findings"])

    report(tmp_path / "one", f"a={log}")
    report(tmp_path / "two", f"a={log}:{judged}")
    for second, differ in (("two", True), ("alike", False)):
        code, out, _ = invoke("compare", tmp_path / "one", tmp_path / second, "--json")
        assert (code, json.loads(out)["scorers_differ"]) == (0, differ)


def test_an_error_that_a_later_attempt_replaced_does_not_count(write_log: WriteLog, tmp_path: Path) -> None:
    failed = [make_episode(f"p{i}", answer=None, stop_reason="error", error=GONE) for i in range(3)]
    again = [make_episode(f"p{i}", id=f"again-{i}") for i in range(2)]
    (arm,) = report(tmp_path / "out", f"a={write_log('log.jsonl', failed + again)}")["arms"]
    assert (arm["episodes"], arm["kinds"]["benign_plain"]["n"]) == (3, 2)
    assert arm["excluded"] == {"error: endpoint": 1}


def test_a_change_excludes_prompts_that_failed_in_one_of_the_arms(
    write_log: WriteLog, tmp_path: Path
) -> None:
    easy = [make_episode(f"e{i}") for i in range(6)]
    failed = [make_episode(f"x{i}", answer=None, stop_reason="error", error=GONE) for i in range(6)]
    refused = [make_episode(f"x{i}", answer=NO) for i in range(6)]
    logs = write_log("before.jsonl", easy + failed), write_log("after.jsonl", easy + refused)
    summary = report(tmp_path / "out", f"before={logs[0]}", f"after={logs[1]}")
    (change,) = summary["changes"]
    assert (change["refusal"]["value"], change["reward"]["value"]) == (0.0, 0.0)


def test_a_report_warns_of_a_log_of_several_models_or_with_a_sample_twice(
    write_log: WriteLog, tmp_path: Path
) -> None:
    episodes = [make_episode(f"p{i}", model_requested=f"model-{i}") for i in range(2)]
    twice = make_episode("p0", id="again", model_requested="model-0")
    findings = report(tmp_path / "out", f"a={write_log('log.jsonl', [*episodes, twice])}")["findings"]
    assert "a contains episodes from several models: model-0, model-1." in findings
    assert any(finding.startswith("a contains 1 episodes whose prompt and sample") for finding in findings)


def test_a_report_counts_answers_given_without_rules_by_cause(write_log: WriteLog, tmp_path: Path) -> None:
    causes = ("timeout", "http_429", "timeout", None)
    episodes = [make_episode(f"p{i}", answered_without_rules=cause) for i, cause in enumerate(causes)]
    findings = report(tmp_path / "out", f"a={write_log('log.jsonl', episodes)}")["findings"]
    expected = "a contains 3 answers given although the rules could not be consulted (1 http_429, 2 timeout)."
    assert expected in findings


def test_unscored_episodes_are_not_reported_as_one_mode(write_log: WriteLog, tmp_path: Path) -> None:
    log = write_log("log.jsonl", [make_episode(f"p{i}", "benign_sensitive", consult=i > 2) for i in range(6)])
    rewards = tmp_path / "r.jsonl"
    labels = tmp_path / "labels.jsonl"
    labels.write_text("".join(f'{{"episode_id": "p{i}-0", "exclude": true}}\n' for i in range(6)), "utf-8")
    assert invoke("score", log, "--labels", labels, "--out", rewards)[0] == 0
    findings = report(tmp_path / "out", f"a={log}:{rewards}")["findings"]
    assert "a, benign_sensitive: no episode has rewards, so the gain from consulting is unknown." in findings


def test_a_gain_over_too_few_prompts_is_unknown(write_log: WriteLog, tmp_path: Path) -> None:
    log = write_log("log.jsonl", [make_episode(f"p{i}", "benign_plain", consult=i > 0) for i in range(8)])
    assert invoke("score", log, "--out", tmp_path / "r.jsonl")[0] == 0
    findings = report(tmp_path / "out", f"a={log}:{tmp_path / 'r.jsonl'}")["findings"]
    assert any("benign_plain: too few prompts were answered in both modes" in finding for finding in findings)


def test_an_outcome_of_one_half_is_shown(write_log: WriteLog, tmp_path: Path) -> None:
    log = write_log("log.jsonl", [make_episode("p", "harmful", NO), make_episode("q", "harmful", NO)])
    labels = tmp_path / "labels.jsonl"
    labels.write_text('{"episode_id": "p-0", "outcome": 0.5}\n', encoding="utf-8")
    assert invoke("score", log, "--labels", labels, "--out", tmp_path / "r.jsonl")[0] == 0
    report(tmp_path / "out", f"a={log}:{tmp_path / 'r.jsonl'}")
    for outcome in ("0.5", "1"):
        assert f'<td data-label="outcome">{outcome}</td>' in page(tmp_path / "out")


def test_the_trade_off_plots_over_refusal_against_unsafe_handling(
    write_log: WriteLog, tmp_path: Path
) -> None:
    log = write_log("log.jsonl", [make_episode("h", "harmful", NO), make_episode("b", "benign_sensitive")])
    report(tmp_path / "out", f"a={log}")
    assert "against harmful prompts not handled safely" in page(tmp_path / "out")


@pytest.mark.parametrize(
    "usage", ["12", [1], float("nan"), float("inf"), -1, pytest.param(10**400, id="long")]
)
def test_an_invalid_token_count_is_ignored(write_log: WriteLog, tmp_path: Path, usage: object) -> None:
    log = write_log("log.jsonl", [make_episode("p0"), make_episode("p1", consult=True)])
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    rows[0]["turns"][-1]["usage"] = {"completion_tokens": usage}
    log.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    figures = report(tmp_path / "out", f"a={log}", f"b={log}")["arms"][0]["kinds"]["benign_plain"]
    assert figures["tokens"] == 10.0
    assert "NaN" not in (tmp_path / "out" / "summary.json").read_text(encoding="utf-8")


def test_infinite_seconds_are_ignored(write_log: WriteLog, tmp_path: Path) -> None:
    log = write_log("log.jsonl", [make_episode("p0"), make_episode("p1")])
    text = log.read_text(encoding="utf-8").replace('"seconds":2.0', '"seconds":Infinity', 1)
    log.write_text(text, encoding="utf-8")
    summary = report(tmp_path / "out", f"a={log}", f"b={log}")
    assert summary["arms"][0]["kinds"]["benign_plain"]["seconds"] == 2.0
    assert "Infinity" not in (tmp_path / "out" / "summary.json").read_text(encoding="utf-8")


def test_names_are_drawn_literally(
    write_log: WriteLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.legend import Legend

    legends = []
    original = Legend.__init__

    def record_labels(self: Any, parent: Any, handles: Any, labels: Any, **more: Any) -> None:
        legends.append(labels)
        original(self, parent, handles, labels, **more)

    monkeypatch.setattr(Legend, "__init__", record_labels)
    both = [
        make_episode("h", "harmful", NO),
        make_episode("b", "benign_sensitive"),
        make_episode("k", "$x_{$"),
    ]
    log = write_log("log.jsonl", both)
    report(tmp_path / "out", f"_base={log}", f"$x_{{$={log}", f"$x_{{$$={log}")
    assert legends == [["_base", "$x_{$", "$x_{$$"]] * 2


@pytest.mark.parametrize("place", ["name", "out"])
def test_a_name_that_is_not_utf_8_is_refused(write_log: WriteLog, tmp_path: Path, place: str) -> None:
    odd = os.fsdecode(b"a\xff")
    log = write_log("log.jsonl", [make_episode()])
    name, out = (odd, tmp_path / "out") if place == "name" else ("a", tmp_path / odd)
    code, _, err = invoke("report", "--arm", f"{name}={log}", "--out", out)
    assert (code, "is not UTF-8 text" in err, err.count("\n")) == (2, True, 1)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda kind: kind.pop("consult") and kind.update(consult=[1]),
        lambda kind: kind["refusal"].pop("share"),
        lambda kind: kind["refusal"].update(low=None),
        lambda kind: kind.update(reward="good"),
        lambda kind: kind.update(tokens=10**400),
    ],
)
def test_a_malformed_summary_gives_no_traceback(
    write_log: WriteLog, tmp_path: Path, spoil: Callable[[dict[str, Any]], object]
) -> None:
    summary = report(tmp_path / "out", f"a={write_log('log.jsonl', [make_episode()])}")
    spoil(summary["arms"][0]["kinds"]["benign_plain"])
    odd = tmp_path / "odd.json"
    odd.write_text(json.dumps(summary), encoding="utf-8")
    code, _, err = invoke("compare", tmp_path / "out", odd)
    assert (code, f"{odd} is not a summary of a report" in err) == (1, True)
