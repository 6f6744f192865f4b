"""Which tokens get a gradient, on every template that is supported, beside the text that they stand for."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tests.fakes.episodes.log import make_episode
from tests.fakes.models.templates import FAMILIES, build_tokenizer
from trainer.tokens import TokenError, episode_tokens
from trainer.tokens.episode_tokens import EpisodeTokens

ANSWER = "Here is how."
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "consult_safety_rules",
            "description": "Looks rules up.",
            "parameters": {"type": "object", "properties": {"situation": {"type": "string"}}},
        },
    }
]
ARGUMENTS = '{"situation": "a delicate request"}'
NO_THOUGHTS = "<think>\n\n</think>\n\n"
# What the policy wrote: the call, and the answer after it.
WROTE = {
    "smollm2": (
        '<tool_call>\n{"name": "consult_safety_rules", "arguments": %s}\n</tool_call><|im_end|>',
        "%s<|im_end|>",
    ),
    "qwen3": (
        NO_THOUGHTS
        + '<tool_call>\n{"name": "consult_safety_rules", "arguments": %s}\n</tool_call><|im_end|>',
        NO_THOUGHTS + "%s<|im_end|>",
    ),
    "llama3.1": ('{"name": "consult_safety_rules", "parameters": %s}<|eot_id|>', "%s<|eot_id|>"),
    "gpt-oss": (
        " to=functions.consult_safety_rules<|channel|>commentary json<|message|>%s<|call|>",
        "<|channel|>final<|message|>%s<|return|>",
    ),
}
OPENS = {
    "smollm2": '<tool_call>\n{"name": "consult_safety_rules',
    "qwen3": '<tool_call>\n{"name": "consult_safety_rules',
    "llama3.1": '{"name": "consult_safety_rules',
    "gpt-oss": " to=functions.consult_safety_rules",
}


def turns(episode: Any) -> list[dict[str, Any]]:
    return [turn.model_dump() for turn in episode.turns]


def stretches(tokenizer: Any, tokens: EpisodeTokens) -> list[str]:
    """The text of every unbroken stretch of tokens that the policy wrote."""
    runs = itertools.groupby(
        zip(tokens.completion_ids, tokens.loss_mask, strict=True), key=lambda pair: pair[1]
    )
    return [tokenizer.decode([token for token, _ in run]) for wrote, run in runs if wrote]


def decided(tokenizer: Any, tokens: EpisodeTokens) -> str:
    return str(tokenizer.decode(tokens.completion_ids[slice(*tokens.decision)]))


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def tokenizer(family: str) -> Any:
    return build_tokenizer(family)


def test_the_policy_wrote_the_call_and_the_answer_and_nothing_else(family: str, tokenizer: Any) -> None:
    episode = make_episode(answer=ANSWER, consult=True)
    tokens = episode_tokens(tokenizer, episode.messages, TOOLS, turns(episode))
    call, answer = WROTE[family]
    assert stretches(tokenizer, tokens) == [call % ARGUMENTS, answer % ANSWER]
    asked = tokenizer.decode(tokens.prompt_ids)
    assert "Looks rules up" in asked
    assert "prompt p1" in asked
    told = tokenizer.decode(
        [t for t, w in zip(tokens.completion_ids, tokens.loss_mask, strict=True) if not w]
    )
    assert "[a.b] A rule" in told


def test_a_call_is_decided_by_what_opens_it_and_an_answer_by_its_first_token(
    family: str, tokenizer: Any
) -> None:
    for consult in (True, False):
        episode = make_episode(answer=ANSWER, consult=consult)
        tokens = episode_tokens(tokenizer, episode.messages, TOOLS, turns(episode))
        text = decided(tokenizer, tokens)
        if consult:
            assert text.rstrip('"') == OPENS[family]
        else:
            first = WROTE[family][1].removeprefix(NO_THOUGHTS) % ANSWER
            assert tokens.decision[1] - tokens.decision[0] == 1
            assert text
            assert first.startswith(text)


def test_of_a_call_that_the_agent_wrote_the_decision_alone_gets_a_gradient(
    family: str, tokenizer: Any
) -> None:
    episode = make_episode(answer=ANSWER, consult=True, mode_forced=True)
    tokens = episode_tokens(tokenizer, episode.messages, TOOLS, turns(episode)[1:], forced=True)
    opening, answer = stretches(tokenizer, tokens)
    assert opening.rstrip('"') == OPENS[family]
    assert answer == WROTE[family][1] % ANSWER
    assert tokens.logprobs is None


def test_ids_that_the_endpoint_gave_are_masked_as_the_text_is(family: str, tokenizer: Any) -> None:
    episode = make_episode(answer=ANSWER, consult=True)
    shown = episode_tokens(tokenizer, episode.messages, TOOLS, turns(episode))
    marks = [0, *shown.loss_mask, 0]
    edges = [i for i in range(len(marks) - 1) if marks[i] != marks[i + 1]]
    logged = [
        {
            "prompt_token_ids": shown.prompt_ids + shown.completion_ids[:start],
            "token_ids": shown.completion_ids[start:end],
            "logprobs": [-0.5] * (end - start),
        }
        for start, end in (edges[:2], edges[2:])
    ]
    known = episode_tokens(tokenizer, episode.messages, TOOLS, logged)
    assert (known.prompt_ids, known.completion_ids) == (shown.prompt_ids, shown.completion_ids)
    assert (known.loss_mask, known.decision) == (shown.loss_mask, shown.decision)
    assert known.logprobs == [-0.5 * here for here in shown.loss_mask]
    agents = episode_tokens(tokenizer, episode.messages, TOOLS, logged[1:], forced=True)
    assert stretches(tokenizer, agents)[1:] == [WROTE[family][1] % ANSWER]
    assert agents.decision == shown.decision


def test_thoughts_before_the_decision_are_the_policys_and_no_part_of_it() -> None:
    tokenizer = build_tokenizer("qwen3")
    episode = make_episode(answer=ANSWER)
    messages = [*episode.messages[:-1], {**episode.messages[-1], "reasoning_content": "Is it harmless?"}]
    tokens = episode_tokens(tokenizer, messages, TOOLS, turns(episode))
    assert stretches(tokenizer, tokens) == [f"<think>\nIs it harmless?\n</think>\n\n{ANSWER}<|im_end|>"]
    assert ANSWER.startswith(decided(tokenizer, tokens))


def test_a_malformed_call_in_the_text_is_decided_where_it_opens() -> None:
    tokenizer = build_tokenizer("smollm2")
    said = 'Let me see. <tool_call>\n{"name": "consult_safety_rules", "arguments": {"situ'
    episode = make_episode(answer=said)
    tokens = episode_tokens(tokenizer, episode.messages, TOOLS, turns(episode))
    assert decided(tokenizer, tokens).strip().rstrip('"') == OPENS["smollm2"]


def test_ids_that_the_tokenizer_does_not_have_are_named() -> None:
    tokenizer = build_tokenizer("smollm2")
    logged = [{"prompt_token_ids": [1, 2], "token_ids": [128_000], "logprobs": [-0.5]}]
    with pytest.raises(TokenError, match="tokens of another tokenizer"):
        episode_tokens(tokenizer, [], [], logged)


def test_arguments_that_are_no_json_are_the_policys_too(family: str, tokenizer: Any) -> None:
    episode = make_episode(answer=ANSWER, consult=True, arguments='{"situation": ')
    tokens = episode_tokens(tokenizer, episode.messages, TOOLS, turns(episode))
    assert decided(tokenizer, tokens).rstrip('"') == OPENS[family]
    assert len(stretches(tokenizer, tokens)) == 2
