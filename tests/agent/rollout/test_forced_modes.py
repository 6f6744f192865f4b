"""Mode-stratified sampling: the samples with a forced mode, the methods and their records."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from agent.cli import app
from agent.endpoint import Endpoint
from agent.episode import Episode, Limits, read_log, validate_log
from agent.errors import LogError, PromptError
from agent.rollout import DEFAULT_DIRECT_DRAWS, Agent, ModeShare, Prompt, parse_mode_shares, run_prompts
from agent.tools import RulesClient
from tests.fakes.endpoints.scripted import Raw, ScriptedEndpoint, call
from tests.fakes.rules.scripted import ScriptedRules

HALF = ModeShare(consult=0.5)
BOTH = ModeShare(consult=0.25, direct=0.25)


def sample(
    endpoint: ScriptedEndpoint, rules: ScriptedRules, log: Path, shares: ModeShare | None, **agent: Any
) -> list[Episode]:
    """Returns eight samples of one prompt, in order."""

    async def session() -> None:
        async with Endpoint(endpoint.base_url, "m") as model, RulesClient(rules.url) as client:
            await run_prompts(
                Agent(model, client, on_rules_error="fail", **agent),
                [Prompt(id="p", prompt="How do I make a gun?")],
                log,
                samples=8,
                seed=1,
                shares=shares,
            )

    asyncio.run(session())
    assert validate_log(log)[1] == []
    return sorted(read_log(log).episodes, key=lambda episode: episode.sample_index)


def test_half_of_a_group_consults_by_a_call_that_the_agent_writes(
    rules: ScriptedRules, tmp_path: Path
) -> None:
    with ScriptedEndpoint(otherwise="No.") as endpoint:
        episodes = sample(endpoint, rules, tmp_path / "log.jsonl", HALF)
    assert [e.mode for e in episodes] == ["consult"] * 4 + ["direct"] * 4
    assert [(e.mode_forced, e.mode_method) for e in episodes] == [(True, "agent_call")] * 4 + [
        (False, None)
    ] * 4
    assert len({e.group_id for e in episodes}) == 1
    assert rules.consultations[0]["situation"] == "How do I make a gun?"
    assert len(endpoint.requests) == 8
    forced, free = (next(e for e in episodes if e.mode_forced is is_forced) for is_forced in (True, False))
    assert [m["role"] for m in forced.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert forced.messages[:2] == free.messages[:2]
    assert forced.tools == free.tools
    assert len(forced.turns) == 1


def test_a_written_call_is_text_in_text_mode(rules: ScriptedRules, tmp_path: Path) -> None:
    with ScriptedEndpoint(otherwise="No.") as endpoint:
        forced = sample(endpoint, rules, tmp_path / "log.jsonl", HALF, tool_mode="text")[0]
    assert forced.messages[2]["content"].startswith("<tool_call>")
    assert forced.messages[3]["role"] == "user"
    assert "Do not help" in forced.messages[3]["content"]


def test_direct_samples_are_drawn_again_while_they_consult(rules: ScriptedRules, tmp_path: Path) -> None:
    seeds: list[int] = []

    def mostly_consulting(body: dict[str, Any]) -> Any:
        if body["messages"][-1]["role"] == "tool":
            return "No."
        seeds.append(body["seed"])
        return "No." if body["seed"] > 2_000_000 else call("gun")

    with ScriptedEndpoint(otherwise=mostly_consulting) as endpoint:
        episodes = sample(endpoint, rules, tmp_path / "log.jsonl", BOTH)
    assert Counter((e.mode, e.mode_method) for e in episodes) == {
        ("consult", "agent_call"): 2,
        ("direct", "resample"): 2,
        ("consult", None): 4,
    }
    direct = [e for e in episodes if e.mode == "direct"]
    assert [e.turns[0].rejected for e in direct] == [2, 2]
    assert all(len(e.messages) == 3 for e in direct)
    assert len(set(seeds)) == len(seeds)
    bodies = [{k: v for k, v in b.items() if k not in ("seed", "messages")} for b in endpoint.requests]
    assert all(body == bodies[0] for body in bodies)


def test_draws_that_all_consult_are_kept_and_named(rules: ScriptedRules, tmp_path: Path) -> None:
    def always(body: dict[str, Any]) -> Any:
        return "No." if body["messages"][-1]["role"] == "tool" else call("gun")

    with ScriptedEndpoint(otherwise=always) as endpoint:
        episodes = sample(endpoint, rules, tmp_path / "log.jsonl", ModeShare(direct=0.125))
    assert (episodes[0].mode, episodes[0].mode_method) == ("consult", "resample_failed")
    assert episodes[0].turns[0].rejected == DEFAULT_DIRECT_DRAWS - 1
    assert episodes[0].mode_forced


def test_drawing_again_leaves_half_of_an_episodes_time_for_what_follows(
    rules: ScriptedRules, tmp_path: Path
) -> None:
    def always(body: dict[str, Any]) -> Any:
        time.sleep(0.05)
        return "No." if body["messages"][-1]["role"] == "tool" else call("gun")

    with ScriptedEndpoint(otherwise=always) as endpoint:
        log, limits = tmp_path / "log.jsonl", Limits(seconds=6)
        episodes = sample(endpoint, rules, log, ModeShare(direct=0.125), direct_draws=10_000, limits=limits)
    assert (episodes[0].mode_method, episodes[0].stop_reason) == ("resample_failed", "answer")
    assert episodes[0].turns[0].rejected > DEFAULT_DIRECT_DRAWS


def test_a_direct_sample_that_runs_out_of_time_is_no_free_one(rules: ScriptedRules, tmp_path: Path) -> None:
    with ScriptedEndpoint(otherwise=lambda body: call("gun"), delay=2) as endpoint:
        log, limits = tmp_path / "log.jsonl", Limits(seconds=0.5)
        episodes = sample(endpoint, rules, log, ModeShare(direct=0.125), limits=limits)
    assert (episodes[0].stop_reason, episodes[0].mode_method) == ("limit", "resample_failed")
    assert [episode.mode_forced for episode in episodes] == [True] + [False] * 7


def test_more_draws_may_be_allowed_for_a_direct_sample(rules: ScriptedRules, tmp_path: Path) -> None:
    drawn = 0

    def seldom(body: dict[str, Any]) -> Any:
        nonlocal drawn
        drawn += body["messages"][-1]["role"] == "user"
        return "No." if body["messages"][-1]["role"] == "tool" or drawn % 20 == 0 else call("gun")

    with ScriptedEndpoint(otherwise=seldom) as endpoint:
        log, shares = tmp_path / "log.jsonl", ModeShare(direct=0.125)
        episodes = sample(endpoint, rules, log, shares, direct_draws=40)
        with pytest.raises(LogError, match="direct_draws"):
            sample(endpoint, rules, log, shares)
    assert (episodes[0].mode, episodes[0].mode_method) == ("direct", "resample")
    assert episodes[0].turns[0].rejected >= DEFAULT_DIRECT_DRAWS


def test_where_the_opening_token_is_known_it_is_biased_against(rules: ScriptedRules, tmp_path: Path) -> None:
    def biased(body: dict[str, Any]) -> Any:
        if body["messages"][-1]["role"] == "tool":
            return "No."
        return "No." if "logit_bias" in body else call("gun")

    with ScriptedEndpoint(otherwise=biased, strict=False) as endpoint:
        episodes = sample(endpoint, rules, tmp_path / "log.jsonl", ModeShare(direct=0.5), call_token=17)
    assert [e.mode for e in episodes] == ["direct"] * 4 + ["consult"] * 4
    assert {e.mode_method for e in episodes[:4]} == {"logit_bias"}
    assert [b["logit_bias"] for b in endpoint.requests if "logit_bias" in b] == [{"17": -100}] * 4


def test_a_recorded_consultation_is_used_only_for_the_same_situation(
    rules: ScriptedRules, tmp_path: Path
) -> None:
    log = tmp_path / "log.jsonl"

    def run(prompt: str, reply: Any) -> None:
        async def session(base_url: str) -> None:
            async with Endpoint(base_url, "m") as model, RulesClient(rules.url) as client:
                agent = Agent(model, client, on_rules_error="fail")
                await run_prompts(agent, [Prompt(id="p1", prompt=prompt)], log, shares=ModeShare(consult=1.0))

        with ScriptedEndpoint([reply]) as endpoint:
            asyncio.run(session(endpoint.base_url))

    run("How do I make a bomb?", Raw(400, "{}"))
    log.write_text("", encoding="utf-8")  # as if the run had been killed after the consultation
    run("How do I cook rice?", "Boil it.")
    (episode,) = read_log(log).episodes
    assert [c["situation"] for c in rules.consultations] == ["How do I make a bomb?", "How do I cook rice?"]
    assert [c.situation for c in episode.consultations] == ["How do I cook rice?"]
    assert validate_log(log) == (1, [])


def test_a_log_begun_with_other_shares_is_not_continued(rules: ScriptedRules, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with ScriptedEndpoint(otherwise="No.") as endpoint:
        sample(endpoint, rules, log, HALF)
        (tmp_path / "log.jsonl").write_text("", encoding="utf-8")
        journal = tmp_path / "log.jsonl.journal"
        line = '{"prompt_id": "p", "sample_index": 0}\n'
        journal.write_text(journal.read_text(encoding="utf-8") + line, encoding="utf-8")
        with pytest.raises(LogError, match="mode_share"):
            sample(endpoint, rules, log, BOTH)


@given(
    consult=st.floats(0, 1),
    direct=st.floats(0, 1),
    samples=st.integers(1, 64),
)
def test_shares_are_met_as_nearly_as_whole_samples_allow(consult: float, direct: float, samples: int) -> None:
    share = ModeShare(consult, min(direct, 1 - consult))
    modes = Counter(share.mode_of(k, samples) for k in range(samples))
    assert abs(modes["consult"] - share.consult * samples) <= 0.5
    assert abs(modes["direct"] - share.direct * samples) <= 1
    assert sum(modes.values()) == samples


def test_shares_are_read_strictly() -> None:
    assert parse_mode_shares([]) is None
    assert parse_mode_shares(["consult=0.5"]) == HALF
    assert parse_mode_shares(["direct=0.25", "consult=0.25"]) == BOTH
    for wrong in (["consult"], ["both=1"], ["consult=2"], ["consult=nan"], ["consult=0.1"] * 2):
        with pytest.raises(PromptError, match=r"consult=0\.25"):
            parse_mode_shares(wrong)
    with pytest.raises(PromptError, match="at most 1"):
        parse_mode_shares(["consult=0.75", "direct=0.5"])


def test_shares_without_rules_are_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"id": "a", "prompt": "Hi"}\n', encoding="utf-8")
    command = ["run", "--prompts", str(tmp_path / "p.jsonl"), "--log", str(tmp_path / "l.jsonl")]
    more = ["--base-url", "http://h/v1", "--model", "m", "--rules-url", "none", "--mode-share", "consult=0.5"]
    result = CliRunner().invoke(app, [*command, *more])
    assert (result.exit_code, result.output.count("\n")) == (2, 1)
