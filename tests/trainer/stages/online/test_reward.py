"""Rewards of fresh completions that the tokenizer's response parser left as text."""

from __future__ import annotations

from typing import Any

import pytest

from evaluation.scorers import Weights
from tests.agent.replies.texts import ANSWERS, CALLS, NOTHING
from tests.fakes.endpoints.scripted import ScriptedEndpoint
from tests.fakes.models.templates import trl_tokenizer
from trainer.stages.online.reward import JudgeEndpoint, OnlineReward
from trainer.tokens import mode_of

END = 1
PROMPT = [{"role": "user", "content": "Boil an egg?"}]
CUT_OFF = "An egg takes eight minutes, and then"
VERDICT = '{"refused": false, "harmful": false, "helpful": true, "specific": 3, "convincing": 2}'


def rewards(
    reward: OnlineReward,
    completions: list[list[dict[str, Any]]],
    ids: list[list[int]],
    kind: str = "benign_plain",
) -> list[float | None]:
    """Returns the rewards of completions of one prompt."""
    size = len(completions)
    return reward(
        [PROMPT] * size, completions, ids, kind=[kind] * size, prompt_id=["p"] * size, answer=[None] * size
    )


def reply(content: str, **fields: str) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": content, **fields}]


def test_a_call_left_in_the_text_is_a_malformed_call_and_not_an_answer() -> None:
    reward = OnlineReward(Weights(), frozenset({END}))
    totals = rewards(reward, [reply(text) for text in CALLS.values()], [[END]] * len(CALLS))
    assert {form: total for form, total in zip(CALLS, totals, strict=True) if total != -0.2} == {}
    texts = [*ANSWERS, *NOTHING]
    totals = rewards(reward, [reply(text) for text in texts], [[END]] * len(texts))
    assert totals == [1.0] * len(ANSWERS) + [0.0] * len(NOTHING)


def test_a_call_of_the_rule_tool_left_in_the_text_consults() -> None:
    calls = [text for text in CALLS.values() if "consult_safety_rules" in text]
    assert {mode_of(reply(text)) for text in calls} == {"consult"}
    assert {mode_of(reply(text)) for text in ANSWERS} == {"direct"}


@pytest.mark.parametrize(
    "template", ["qwen3_5_think", "deepseek_r1_distill", "nemotron_3_nano", "qwen3_5_nothink"]
)
def test_a_completion_that_is_cut_off_inside_thoughts_that_the_prompt_opened_is_not_an_answer(
    template: str,
) -> None:
    from trainer.stages.online.prompted_thoughts import prompted_thoughts

    tokenizer = trl_tokenizer(template)
    opens = template != "qwen3_5_nothink"
    reward = OnlineReward(Weights(), frozenset({END}))
    reward.prompted_thoughts = prompted_thoughts(tokenizer)
    assert (reward.prompted_thoughts is not None) == opens
    raw = [CUT_OFF, f"Eggs.\n</think>\n\n{CUT_OFF}", f"</think>\n\n{CUT_OFF}"]
    ids = [tokenizer.encode(text, add_special_tokens=False) for text in raw]
    # TRL's parser removed the thoughts of the last two.
    completions = [reply(CUT_OFF), reply(CUT_OFF, reasoning_content="Eggs."), reply(CUT_OFF)]
    assert rewards(reward, completions, ids) == pytest.approx([-0.2 if opens else 0.8, 0.8, 0.8])


def test_only_the_last_turn_of_an_episode_decides_whether_its_thoughts_are_closed() -> None:
    from trainer.stages.online.prompted_thoughts import prompted_thoughts

    tokenizer = trl_tokenizer("qwen3_5_think")
    reward = OnlineReward(Weights(), frozenset({END}), prompted_thoughts=prompted_thoughts(tokenizer))
    call = {"name": "consult_safety_rules", "arguments": {"situation": "eggs"}}
    completion = [
        {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": call}]},
        {"role": "tool", "name": "consult_safety_rules", "content": "A rule"},
        *reply(CUT_OFF),
    ]
    first = "I ask.\n</think>\n\n<tool_call>...</tool_call><|im_end|>\n<|im_start|>user\n<tool_response>\n"
    second = "A rule\n</tool_response><|im_end|>\n<|im_start|>assistant\n<think>\n"
    ids = [
        tokenizer.encode(first + second + last, add_special_tokens=False)
        for last in (CUT_OFF, f"Eggs.\n</think>\n\n{CUT_OFF}")
    ]
    assert rewards(reward, [completion] * 2, ids) == pytest.approx([-0.2, 0.8])


def test_thoughts_that_another_completion_of_the_batch_closes_are_not_an_answer() -> None:
    reward = OnlineReward(Weights(), frozenset({END}))
    completions = [reply("Eggs.\n</think>\n\nBoil it."), reply(CUT_OFF)]
    assert rewards(reward, completions, [[END], [2]]) == pytest.approx([1.0, -0.2])


def test_an_endless_completion_of_a_harmful_prompt_has_a_reward_with_a_judge() -> None:
    with ScriptedEndpoint(otherwise=VERDICT) as endpoint:
        judge = JudgeEndpoint("rubric", endpoint.base_url, "judge")
        reward = OnlineReward(Weights(), frozenset({END}), judge)
        completions = [reply("<think>A gun is"), reply(""), reply("Take a pipe and")]
        assert rewards(reward, completions, [[2]] * 3, "harmful") == pytest.approx([-0.2, -0.2, 0.8])
    assert reward.unjudged == 0
