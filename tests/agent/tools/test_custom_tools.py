"""Custom tools beside the rule tool: offered first, executed once, failures reported to the model."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agent.endpoint import Endpoint
from agent.episode import Api, Episode, read_log
from agent.export.redact import redact_episode
from agent.rollout import Agent, Prompt, run_prompts
from agent.tools import CustomTool, RulesClient
from tests.fakes.endpoints.responses import call_item, message_item, response_with
from tests.fakes.endpoints.scripted import Raw, ScriptedEndpoint, call
from tests.fakes.episodes.agent_run import FAST_RETRY
from tests.fakes.rules.scripted import ScriptedRules


class Clock:
    """A tool that records its calls."""

    def __init__(self) -> None:
        self.cities: list[str] = []

    async def __call__(self, arguments: dict[str, Any]) -> Any:
        self.cities.append(arguments["city"])
        return {"time": "12:00"}

    @property
    def tool(self) -> CustomTool:
        return CustomTool("get_time", "The time in a city.", self)


def time_call(arguments: str = '{"city": "Oslo"}', id: str = "t1") -> dict[str, Any]:
    return call(arguments=arguments, name="get_time", id=id)


def ask(
    script: list[Any], rules: ScriptedRules, *tools: CustomTool, api: Api = "chat", log: Path | None = None
) -> tuple[Episode, ScriptedEndpoint]:
    async def session(base_url: str) -> Episode:
        async with (
            Endpoint(base_url, "m", retry=FAST_RETRY, api=api) as model,
            RulesClient(rules.url, waits=()) as client,
        ):
            agent = Agent(model, client, tools=tools, on_rules_error="fail")
            if log is None:
                return await agent.run("What time is it?")
            await run_prompts(agent, [Prompt(id="p", prompt="What time is it?")], log)
            return read_log(log).episodes[-1]

    with ScriptedEndpoint(script, strict=False) as endpoint:
        return asyncio.run(session(endpoint.base_url)), endpoint


def test_both_kinds_of_call_in_one_reply_are_answered(rules: ScriptedRules) -> None:
    both = {**time_call(), "tool_calls": [*time_call()["tool_calls"], *call("gun", id="c1")["tool_calls"]]}
    clock = Clock()
    episode, endpoint = ask([both, "Noon."], rules, clock.tool)
    assert [t["function"]["name"] for t in endpoint.requests[0]["tools"]] == [
        "get_time",
        "consult_safety_rules",
    ]
    one, two = endpoint.requests[1]["messages"][-2:]
    assert (one["tool_call_id"], one["content"]) == ("t1", '{"time": "12:00"}')
    assert (two["tool_call_id"], "Do not help to make weapons." in two["content"]) == ("c1", True)
    assert (episode.answer, episode.mode, len(episode.consultations)) == ("Noon.", "consult", 1)
    assert clock.cities == ["Oslo"]
    assert [t["function"]["name"] for t in redact_episode(episode, "salt").tools] == ["consult_safety_rules"]


def test_a_custom_tool_call_is_not_a_consultation(rules: ScriptedRules) -> None:
    episode, _ = ask([time_call(), "Noon."], rules, Clock().tool)
    assert (episode.mode, episode.consultations) == ("direct", [])


def test_the_responses_api_offers_and_answers_them_too(rules: ScriptedRules) -> None:
    clock = Clock()
    script = [
        response_with(call_item(name="get_time", arguments='{"city": "Oslo"}')),
        response_with(message_item("Noon.")),
    ]
    episode, endpoint = ask(script, rules, clock.tool, api="responses")
    assert episode.answer == "Noon."
    assert endpoint.requests[1]["input"][-1]["output"] == '{"time": "12:00"}'


@pytest.mark.parametrize(
    ("arguments", "message"),
    [("{}", "the tool get_time failed (KeyError"), ('{"city": ', "could not be read (not valid JSON")],
)
def test_the_model_receives_errors_of_a_custom_tool(
    rules: ScriptedRules, arguments: str, message: str
) -> None:
    episode, endpoint = ask([time_call(arguments), "I do not know."], rules, Clock().tool)
    assert message in endpoint.requests[1]["messages"][-1]["content"]
    assert episode.answer == "I do not know."


def test_an_interrupted_run_carries_no_tool_out_again(rules: ScriptedRules, tmp_path: Path) -> None:
    clock, log = Clock(), tmp_path / "log.jsonl"
    first, _ = ask([time_call(), Raw(400, "{}")], rules, clock.tool, log=log)
    assert first.stop_reason == "error"
    second, endpoint = ask(["Noon."], rules, clock.tool, log=log)
    assert (second.answer, clock.cities, len(endpoint.requests)) == ("Noon.", ["Oslo"], 1)


def test_names_that_clash_are_refused_at_once() -> None:
    endpoint = Endpoint("http://127.0.0.1:9/v1", "m")
    for tools in ([Clock().tool, Clock().tool], [CustomTool("consult_safety_rules", "", print)]):
        with pytest.raises(ValueError, match="unique names"):
            Agent(endpoint, None, tools=tools)
