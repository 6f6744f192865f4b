"""Loss masks of every supported chat template, compared by their text."""

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
# Text that contributes to the loss: the call, and the answer after it.
REPLIES = {
    "smollm2": (
        '<tool_call>\n{"name": "consult_safety_rules", "arguments": %s}\n</tool_call><|im_end|>',
        "%s<|im_end|>",
    ),
    "qwen3": (
        '<tool_call>\n{"name": "consult_safety_rules", "arguments": %s}\n</tool_call><|im_end|>',
        "%s<|im_end|>",
    ),
    "llama3.1": ('{"name": "consult_safety_rules", "parameters": %s}<|eot_id|>', "%s<|eot_id|>"),
    "gpt-oss": (
        " to=functions.consult_safety_rules<|channel|>commentary json<|message|>%s<|call|>",
        "<|channel|>final<|message|>%s<|return|>",
    ),
}
OPENINGS = {
    "smollm2": '<tool_call>\n{"name": "consult_safety_rules',
    "qwen3": '<tool_call>\n{"name": "consult_safety_rules',
    "llama3.1": '{"name": "consult_safety_rules',
    "gpt-oss": " to=functions.consult_safety_rules",
}


def turns(episode: Any) -> list[dict[str, Any]]:
    return [turn.model_dump() for turn in episode.turns]


def loss_spans(tokenizer: Any, tokens: EpisodeTokens) -> list[str]:
    """Returns the text of every contiguous span of tokens in the loss mask."""
    runs = itertools.groupby(
        zip(tokens.completion_ids, tokens.loss_mask, strict=True), key=lambda pair: pair[1]
    )
    return [tokenizer.decode([token for token, _ in run]) for in_loss, run in runs if in_loss]


def decision_text(tokenizer: Any, tokens: EpisodeTokens) -> str:
    return str(tokenizer.decode(tokens.completion_ids[slice(*tokens.decision)]))


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def tokenizer(family: str) -> Any:
    return build_tokenizer(family)


def test_only_the_call_and_the_answer_carry_loss(family: str, tokenizer: Any) -> None:
    episode = make_episode(answer=ANSWER, consult=True)
    tokens = episode_tokens(tokenizer, episode.messages, TOOLS, turns(episode))
    call, answer = REPLIES[family]
    assert loss_spans(tokenizer, tokens) == [call % ARGUMENTS, answer % ANSWER]
    prompt_text = tokenizer.decode(tokens.prompt_ids)
    assert "Looks rules up" in prompt_text
    assert "prompt p1" in prompt_text
    masked_text = tokenizer.decode(
        [t for t, w in zip(tokens.completion_ids, tokens.loss_mask, strict=True) if not w]
    )
    assert "[a.b] A rule" in masked_text


def test_the_decision_is_the_opening_of_a_call_or_the_first_token_of_an_answer(
    family: str, tokenizer: Any
) -> None:
    for consult in (True, False):
        episode = make_episode(answer=ANSWER, consult=consult)
        tokens = episode_tokens(tokenizer, episode.messages, TOOLS, turns(episode))
        text = decision_text(tokenizer, tokens)
        if consult:
            assert text.rstrip('"') == OPENINGS[family]
        else:
            first = REPLIES[family][1] % ANSWER
            assert tokens.decision[1] - tokens.decision[0] == 1
            assert text
            assert first.startswith(text)


def test_only_the_decision_of_a_call_written_by_the_agent_carries_loss(family: str, tokenizer: Any) -> None:
    episode = make_episode(answer=ANSWER, consult=True, mode_forced=True)
    tokens = episode_tokens(tokenizer, episode.messages, TOOLS, turns(episode)[1:], forced=True)
    opening, answer = loss_spans(tokenizer, tokens)
    assert opening.rstrip('"') == OPENINGS[family]
    assert answer == REPLIES[family][1] % ANSWER
    assert tokens.logprobs is None


def test_logged_ids_are_masked_like_the_rendered_text(family: str, tokenizer: Any) -> None:
    episode = make_episode(answer=ANSWER, consult=True)
    from_text = episode_tokens(tokenizer, episode.messages, TOOLS, turns(episode))
    marks = [0, *from_text.loss_mask, 0]
    edges = [i for i in range(len(marks) - 1) if marks[i] != marks[i + 1]]
    logged = [
        {
            "prompt_token_ids": from_text.prompt_ids + from_text.completion_ids[:start],
            "token_ids": from_text.completion_ids[start:end],
            "logprobs": [-0.5] * (end - start),
        }
        for start, end in (edges[:2], edges[2:])
    ]
    from_ids = episode_tokens(tokenizer, episode.messages, TOOLS, logged)
    assert (from_ids.prompt_ids, from_ids.completion_ids) == (from_text.prompt_ids, from_text.completion_ids)
    assert (from_ids.loss_mask, from_ids.decision) == (from_text.loss_mask, from_text.decision)
    assert from_ids.logprobs == [-0.5 * here for here in from_text.loss_mask]
    forced = episode_tokens(tokenizer, episode.messages, TOOLS, logged[1:], forced=True)
    assert loss_spans(tokenizer, forced)[1:] == [REPLIES[family][1] % ANSWER]
    assert forced.decision == from_text.decision


def test_thoughts_before_the_decision_carry_loss_and_are_not_part_of_it() -> None:
    tokenizer = build_tokenizer("qwen3")
    episode = make_episode(answer=ANSWER)
    messages = [*episode.messages[:-1], {**episode.messages[-1], "reasoning_content": "Is it harmless?"}]
    tokens = episode_tokens(tokenizer, messages, TOOLS, turns(episode))
    assert loss_spans(tokenizer, tokens) == [f"<think>\nIs it harmless?\n</think>\n\n{ANSWER}<|im_end|>"]
    assert ANSWER.startswith(decision_text(tokenizer, tokens))


@pytest.mark.parametrize("suffix", ["", " "], ids=["known to TRL", "unknown to TRL"])
def test_thoughts_before_a_call_are_kept_if_the_prompt_held_them(suffix: str) -> None:
    """gpt-oss's template drops them once the answer follows, but the model was asked with them."""
    tokenizer = build_tokenizer("gpt-oss")
    tokenizer.chat_template = tokenizer.chat_template + "{# changed #}" * len(suffix)
    episode = make_episode(answer=ANSWER, consult=True)
    messages = [dict(message) for message in episode.messages]
    messages[1]["reasoning_content"], messages[3]["reasoning_content"] = "Delicate.", "Allowed."
    tokens = episode_tokens(tokenizer, messages, TOOLS, turns(episode))
    call, answer = REPLIES["gpt-oss"]
    thought = "<|channel|>analysis<|message|>%s<|end|><|start|>assistant"
    assert loss_spans(tokenizer, tokens) == [
        thought % "Delicate." + call % ARGUMENTS,
        thought % "Allowed." + answer % ANSWER,
    ]
    assert decision_text(tokenizer, tokens) == OPENINGS["gpt-oss"]


def test_the_decision_of_a_malformed_call_is_its_opening() -> None:
    tokenizer = build_tokenizer("smollm2")
    reply = 'Let me see. <tool_call>\n{"name": "consult_safety_rules", "arguments": {"situ'
    episode = make_episode(answer=reply)
    tokens = episode_tokens(tokenizer, episode.messages, TOOLS, turns(episode))
    assert decision_text(tokenizer, tokens).strip().rstrip('"') == OPENINGS["smollm2"]


def test_ids_of_another_tokenizer_are_refused() -> None:
    tokenizer = build_tokenizer("smollm2")
    logged = [{"prompt_token_ids": [1, 2], "token_ids": [128_000], "logprobs": [-0.5]}]
    with pytest.raises(TokenError, match="tokens of another tokenizer"):
        episode_tokens(tokenizer, [], [], logged)


def test_arguments_that_are_not_json_carry_loss(family: str, tokenizer: Any) -> None:
    episode = make_episode(answer=ANSWER, consult=True, arguments='{"situation": ')
    tokens = episode_tokens(tokenizer, episode.messages, TOOLS, turns(episode))
    assert decision_text(tokenizer, tokens).rstrip('"') == OPENINGS[family]
    assert len(loss_spans(tokenizer, tokens)) == 2
