"""Runs over many prompts: interrupted, killed, misconfigured, and continued."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from agent.cli.tables import summary_line
from agent.endpoint import Endpoint
from agent.episode import Journal, OnRulesError, read_log, validate_log
from agent.errors import EndpointError, LogError, RulesError
from agent.rollout import Agent, Prompt, RunSummary, run_prompts
from agent.tools import RulesClient
from tests.fakes.endpoints.scripted import Raw, ScriptedEndpoint, call
from tests.fakes.episodes.agent_run import CLOSED_URL, FAST_RETRY
from tests.fakes.rules.scripted import ScriptedRules

ROOT = Path(__file__).resolve().parents[3]
PROMPTS = [Prompt(id=f"p{n}", prompt=f"Question {n}?", kind="benign_plain") for n in range(6)]


def consult_then_answer(body: dict[str, Any]) -> Any:
    """Consults once for each prompt and then answers."""
    last = body["messages"][-1]
    return call(last["content"], id=None) if last["role"] == "user" else "An answer."


def sample(
    endpoint: ScriptedEndpoint | str,
    rules: ScriptedRules,
    log: Path,
    *,
    prompts: list[Prompt] = PROMPTS,
    stop_after: int | None = None,
    temperature: float = 1.0,
    max_tokens: int | None = None,
    on_rules_error: OnRulesError = "fail",
    **options: Any,
) -> RunSummary:
    """Runs the prompts; cancels the run, as Ctrl-C does, once `stop_after` episodes are logged."""

    async def session() -> RunSummary:
        base_url = endpoint if isinstance(endpoint, str) else endpoint.base_url
        async with (
            Endpoint(base_url, "scripted", retry=FAST_RETRY) as model,
            RulesClient(rules.url, waits=()) as client,
        ):
            sampling = {"temperature": temperature} | ({"max_tokens": max_tokens} if max_tokens else {})
            agent = Agent(model, client, sampling=sampling, on_rules_error=on_rules_error)
            task: asyncio.Task[RunSummary] | None = None

            def on_progress(result: int, total: int, episode: Any) -> None:
                if stop_after is not None and episode is not None and result >= stop_after:
                    assert task is not None
                    task.cancel()

            task = asyncio.create_task(
                run_prompts(agent, prompts, log, on_progress=on_progress, **{"concurrency": 3, **options})
            )
            return await task

    return asyncio.run(session())


def keys(log: Path) -> Counter[tuple[str, int]]:
    return Counter((e.prompt_id, e.sample_index) for e in read_log(log).episodes if e.stop_reason != "error")


def test_every_prompt_is_sampled_as_often_as_asked(rules: ScriptedRules, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with ScriptedEndpoint(otherwise=consult_then_answer, delay=0.02) as endpoint:
        summary = sample(endpoint, rules, log, samples=2, concurrency=4, seed=7)
    assert keys(log) == {(f"p{n}", k): 1 for n in range(6) for k in range(2)}
    assert (summary.episodes, summary.asked, summary.modes) == (12, 12, {"consult": 12})
    assert 1 < endpoint.in_flight_most <= 4
    assert {e.sampling_sent["seed"] - e.sample_index for e in read_log(log).episodes} == {7}
    assert len({e.group_id for e in read_log(log).episodes}) == len(PROMPTS)
    assert validate_log(log) == (12, [])


def test_a_finished_run_sends_no_further_request(rules: ScriptedRules, tmp_path: Path) -> None:
    with ScriptedEndpoint(otherwise=consult_then_answer) as endpoint:
        sample(endpoint, rules, tmp_path / "log.jsonl")
        request_count = len(endpoint.requests)
        summary = sample(endpoint, rules, tmp_path / "log.jsonl")
        more = sample(endpoint, rules, tmp_path / "log.jsonl", samples=2)
    assert (summary.asked, summary.episodes) == (0, 6)
    assert (more.asked, more.episodes) == (6, 12)
    assert len(endpoint.requests) == 2 * request_count


def test_an_interrupted_run_resumes_without_repeating_answered_requests(
    rules: ScriptedRules, tmp_path: Path
) -> None:
    log = tmp_path / "log.jsonl"
    with ScriptedEndpoint(otherwise=consult_then_answer) as endpoint:
        with pytest.raises(asyncio.CancelledError):
            sample(endpoint, rules, log, stop_after=2)
        journalled = (tmp_path / "log.jsonl.journal").read_text(encoding="utf-8").count('"message"')
        before = len(endpoint.requests)
        sample(endpoint, rules, log)
    assert keys(log) == {(f"p{n}", 0): 1 for n in range(6)}
    # 6 prompts with 2 requests each; the requests in flight at the cancellation are repeated.
    assert len(endpoint.requests) == 12 + before - journalled
    assert before - journalled <= 3
    assert validate_log(log) == (6, [])


def test_a_failed_episode_resumes_at_the_request_that_failed(rules: ScriptedRules, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    script = [call("Question 0?"), Raw(400, '{"error": {"message": "context too long"}}'), "An answer."]
    with ScriptedEndpoint(script) as endpoint:
        failed = sample(endpoint, rules, log, prompts=PROMPTS[:1])
        mended = sample(endpoint, rules, log, prompts=PROMPTS[:1])
    assert (failed.stop_reasons, mended.stop_reasons) == ({"error": 1}, {"answer": 1})
    first, second = read_log(log).episodes
    assert first.error is not None
    assert "context too long" in first.error.message
    assert second.answer == "An answer."
    assert (len(endpoint.requests), len(rules.consultations)) == (3, 1)


def test_one_bad_episode_leaves_its_siblings_alone(rules: ScriptedRules, tmp_path: Path) -> None:
    def one_bad(body: dict[str, Any]) -> Any:
        bad = body["messages"][1]["content"] == "Question 3?"
        return Raw(400, '{"error": {"message": "bad"}}') if bad else "An answer."

    with ScriptedEndpoint(otherwise=one_bad) as endpoint:
        summary = sample(endpoint, rules, tmp_path / "log.jsonl")
    assert summary.stop_reasons == {"answer": 5, "error": 1}
    assert summary.modes == {"direct": 5}


def test_changed_settings_are_refused_with_what_changed(rules: ScriptedRules, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with ScriptedEndpoint(otherwise="An answer.") as endpoint:
        sample(endpoint, rules, log)
        request_count = len(endpoint.requests)
        with pytest.raises(LogError, match=r'sampling was {"temperature": 1.0}, now {"temperature": 0.5}'):
            sample(endpoint, rules, log, temperature=0.5)
        with pytest.raises(LogError, match="different text for the prompt 'p0'"):
            sample(endpoint, rules, log, prompts=[Prompt(id="p0", prompt="Something else?")])
        rules.digest = "e2" * 32
        with pytest.raises(LogError, match="rulebook_digest was d1d1d1d1d1d1, now e2e2e2e2e2e2"):
            sample(endpoint, rules, log)
    assert len(endpoint.requests) == request_count


def test_settings_are_held_from_the_first_reply_on(rules: ScriptedRules, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    script = [call("Question 0?"), Raw(400, "{}")]
    with ScriptedEndpoint(script, otherwise="An answer.") as endpoint:
        sample(endpoint, rules, log, prompts=PROMPTS[:1])
        log.write_text("", encoding="utf-8")
        with pytest.raises(LogError, match="temperature"):
            sample(endpoint, rules, log, prompts=PROMPTS[:1], temperature=0.5)


def test_a_rulebook_change_during_a_run_stops_it(rules: ScriptedRules, tmp_path: Path) -> None:
    def edit(body: dict[str, Any]) -> Any:
        rules.digest = "e2" * 32
        return call("gun")

    with (
        ScriptedEndpoint(["An answer.", edit], otherwise="An answer.") as endpoint,
        pytest.raises(RulesError, match="rulebook changed during the run"),
    ):
        sample(endpoint, rules, tmp_path / "log.jsonl", concurrency=1)
    assert keys(tmp_path / "log.jsonl") == {("p0", 0): 1}


def test_a_log_of_a_later_version_is_not_continued(rules: ScriptedRules, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"schema_version": 99}\n', encoding="utf-8")
    with (
        ScriptedEndpoint(otherwise="Fine.") as endpoint,
        pytest.raises(LogError, match="line 1 was written by a later version of ascl"),
    ):
        sample(endpoint, rules, log)
    assert endpoint.requests == []


def test_two_runs_do_not_write_to_one_log(rules: ScriptedRules, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with (
        Journal(log, {}, set()),
        ScriptedEndpoint() as endpoint,
        pytest.raises(LogError, match="another run is writing"),
    ):
        sample(endpoint, rules, log)


def test_an_endpoint_that_was_never_there_stops_the_run_and_logs_nothing(
    rules: ScriptedRules, tmp_path: Path
) -> None:
    log = tmp_path / "log.jsonl"
    with pytest.raises(EndpointError, match="cannot be reached"):
        sample(f"{CLOSED_URL}/v1", rules, log)
    assert read_log(log).episodes == []
    with ScriptedEndpoint(otherwise="An answer.") as endpoint:
        assert sample(endpoint, rules, log, temperature=0.5).stop_reasons == {"answer": 6}


def test_an_endpoint_that_goes_away_for_good_stops_the_run(rules: ScriptedRules, tmp_path: Path) -> None:
    many = [Prompt(id=f"p{n}", prompt=f"Question {n}?") for n in range(50)]
    with (
        ScriptedEndpoint(["An answer."], otherwise=Raw(401, "{}")) as endpoint,
        pytest.raises(EndpointError, match="401"),
    ):
        sample(endpoint, rules, tmp_path / "log.jsonl", prompts=many, concurrency=2)
    assert len(endpoint.requests) < 10


def test_a_rule_service_that_is_not_there_stops_the_run(tmp_path: Path) -> None:
    rules = ScriptedRules()
    with rules:
        rules.stop()
        with ScriptedEndpoint() as endpoint, pytest.raises(RulesError, match="ascl-rules serve"):
            sample(endpoint, rules, tmp_path / "log.jsonl")
    assert endpoint.requests == []


def test_many_episodes_at_once_all_arrive(rules: ScriptedRules, tmp_path: Path) -> None:
    many = [Prompt(id=f"p{n}", prompt=f"Question {n}?") for n in range(64)]
    with ScriptedEndpoint(otherwise=consult_then_answer) as endpoint:
        summary = sample(endpoint, rules, tmp_path / "log.jsonl", prompts=many, concurrency=64)
    assert summary.modes == {"consult": 64}
    assert (len(endpoint.requests), len(rules.consultations)) == (128, 64)


def test_a_killed_command_resumes_without_lost_or_repeated_requests(
    rules: ScriptedRules, tmp_path: Path
) -> None:
    prompts, log = tmp_path / "prompts.jsonl", tmp_path / "log.jsonl"
    prompts.write_text("".join(f"{p.model_dump_json()}\n" for p in PROMPTS), encoding="utf-8")
    with ScriptedEndpoint(otherwise=consult_then_answer, delay=0.05) as endpoint:
        command = [
            *(sys.executable, "-m", "agent.cli", "run", "--prompts", str(prompts), "--log", str(log)),
            *("--base-url", endpoint.base_url, "--model", "scripted", "--rules-url", rules.url),
            *("--samples", "3", "--concurrency", "2", "--trace"),
        ]
        acknowledged = 0
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            while acknowledged < 4:
                acknowledged += " answer: " in process.stdout.readline()
            os.kill(process.pid, signal.SIGKILL)
            acknowledged += process.stdout.read().count(" answer: ")
        before, reading = len(endpoint.requests), read_log(log)
        assert acknowledged <= len(reading.episodes) < 18
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    assert keys(log) == {(f"p{n}", k): 1 for n in range(6) for k in range(3)}
    # 18 episodes with 2 requests each, plus at most the requests in flight when the process died.
    assert before < 36 <= len(endpoint.requests) <= 38


def test_a_journal_line_that_a_kill_cut_off_is_asked_again(rules: ScriptedRules, tmp_path: Path) -> None:
    log, journal = tmp_path / "log.jsonl", tmp_path / "log.jsonl.journal"
    script = [call("Question 0?"), Raw(400, "{}"), call("Question 0?"), "An answer."]
    with ScriptedEndpoint(script) as endpoint:
        sample(endpoint, rules, log, prompts=PROMPTS[:1])
        whole = journal.read_text(encoding="utf-8")
        settings, turn, _ = whole.splitlines(keepends=True)
        journal.write_text(settings + turn[: len(turn) // 2], encoding="utf-8")
        assert sample(endpoint, rules, log, prompts=PROMPTS[:1]).stop_reasons == {"answer": 1}
    assert len(endpoint.requests) == 4


def test_an_interrupted_command_says_so_and_ends_with_130(rules: ScriptedRules, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(f"{PROMPTS[0].model_dump_json()}\n", encoding="utf-8")
    with ScriptedEndpoint(["late"], delay=30) as endpoint:
        command = [
            *(sys.executable, "-m", "agent.cli", "run", "--prompts", str(prompts)),
            *("--log", str(tmp_path / "log.jsonl"), "--base-url", endpoint.base_url, "--model", "m"),
            *("--rules-url", rules.url),
        ]
        # A test run in the background of a shell ignores interrupts, and its child processes inherit that.
        with subprocess.Popen(
            command,
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        ) as process:
            deadline = time.monotonic() + 30
            while not endpoint.requests and time.monotonic() < deadline:
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            _, stderr_text = process.communicate(timeout=30)
    assert process.returncode == 130
    assert stderr_text.startswith("ascl-agent: interrupted")
    assert "Traceback" not in stderr_text


def test_answers_given_without_rules_are_counted_by_cause(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    rules = ScriptedRules()

    def stop_rules(body: dict[str, Any]) -> Any:
        rules.stop()
        return consult_then_answer(body)

    with rules, ScriptedEndpoint(["An answer.", stop_rules], otherwise=consult_then_answer) as endpoint:
        summary = sample(endpoint, rules, log, on_rules_error="answer", concurrency=1)
    causes = {episode.prompt_id: episode.answered_without_rules for episode in read_log(log).episodes}
    assert causes == {"p0": None, **{f"p{n}": "unreachable" for n in range(1, 6)}}
    assert summary.without_rules == {"unreachable": 5}
    assert "5 answered without rules that could not be consulted (5 unreachable)" in summary_line(
        summary, log
    )
    with ScriptedEndpoint() as endpoint, ScriptedRules() as reachable:
        again = sample(endpoint, reachable, log, on_rules_error="answer")
    assert (again.asked, again.without_rules) == (0, {"unreachable": 5})


def test_calls_that_the_token_limit_cut_off_are_counted(rules: ScriptedRules, tmp_path: Path) -> None:
    cut = call(arguments='{"situation": "someo')
    replies: dict[str, Any] = {
        "Question 0?": {"choices": [{"message": cut, "finish_reason": "length"}]},
        # as `transformers serve` ends it
        "Question 1?": {
            "choices": [{"message": cut, "finish_reason": "tool_calls"}],
            "usage": {"prompt_tokens": 9, "completion_tokens": 48, "total_tokens": 57},
        },
        "Question 2?": call(arguments="{malformed by itself"),
    }

    def decide(body: dict[str, Any]) -> Any:
        return replies.get(body["messages"][-1]["content"], "An answer.")

    with ScriptedEndpoint(otherwise=decide) as endpoint:
        summary = sample(endpoint, rules, tmp_path / "log.jsonl", max_tokens=48)
        again = sample(endpoint, rules, tmp_path / "log.jsonl", max_tokens=48)
    assert (summary.cut_calls, again.cut_calls, again.asked) == (2, 2, 0)
    assert "; 2 have a call that --max-tokens cut off: raise it" in summary_line(summary, tmp_path)
    summary.cut_calls = 0
    assert "--max-tokens" not in summary_line(summary, tmp_path)
