"""Only the tokens that the policy wrote contribute to the loss."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes.episodes.log import make_episode
from tests.fakes.models.tiny_llama import tiny_tokenizer
from trainer.tokens import TokenError, consultations_of, episode_tokens


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_tokenizer()


def loss_text(tokenizer: Any, tokens: Any) -> str:
    return str(
        tokenizer.decode(
            [t for t, in_loss in zip(tokens.completion_ids, tokens.loss_mask, strict=True) if in_loss]
        )
    )


def turns(episode: Any, **changes: Any) -> list[dict[str, Any]]:
    return [turn.model_dump() | changes for turn in episode.turns]


def test_the_call_and_the_answer_of_a_text_only_consultation_carry_loss(tokenizer: Any) -> None:
    episode = make_episode(answer="Here you are.", consult=True)
    tokens = episode_tokens(tokenizer, episode.messages, [], turns(episode))
    text = loss_text(tokenizer, tokens)
    assert text.startswith("<tool_call>")
    assert text.endswith("Here you are.<|im_end|>")
    assert "[a.b] A rule" not in text
    assert "[a.b] A rule" in tokenizer.decode(tokens.completion_ids)
    assert tokenizer.decode(tokens.prompt_ids).endswith("prompt p1<|im_end|>\n<|im_start|>assistant\n")
    assert tokens.logprobs is None


def test_the_end_token_of_a_truncated_reply_carries_no_loss(tokenizer: Any) -> None:
    episode = make_episode(answer="Here you are.", finish_reason="length")
    tokens = episode_tokens(tokenizer, episode.messages, [], turns(episode))
    assert loss_text(tokenizer, tokens) == "Here you are."


def test_the_end_token_of_an_earlier_turn_stays_when_the_last_reply_is_truncated(tokenizer: Any) -> None:
    episode = make_episode(answer="Here you are.", consult=True, finish_reason="length")
    tokens = episode_tokens(tokenizer, episode.messages, [], turns(episode))
    assert loss_text(tokenizer, tokens).count("<|im_end|>") == 1


def test_logged_token_ids_and_log_probabilities_are_used_unchanged(tokenizer: Any) -> None:
    logged = [
        {"prompt_token_ids": [1, 2], "token_ids": [3, 4], "logprobs": [-0.5, -0.25]},
        {
            "prompt_token_ids": [1, 2, 3, 4, 9, 9],
            "token_ids": [5],
            "logprobs": {"content": [{"token": "x", "logprob": -1.5}]},
        },
    ]
    tokens = episode_tokens(tokenizer, [], [], logged)
    assert tokens.prompt_ids == [1, 2]
    assert tokens.completion_ids == [3, 4, 9, 9, 5]
    assert tokens.loss_mask == [1, 1, 0, 0, 1]
    assert tokens.logprobs == [-0.5, -0.25, 0, 0, -1.5]


def test_log_probabilities_of_another_length_are_ignored(tokenizer: Any) -> None:
    logged = [{"prompt_token_ids": [1], "token_ids": [3, 4], "logprobs": [-0.5]}]
    assert episode_tokens(tokenizer, [], [], logged).logprobs is None


def test_a_turn_that_does_not_continue_the_previous_one_is_refused(tokenizer: Any) -> None:
    logged = [
        {"prompt_token_ids": [1, 2], "token_ids": [3], "logprobs": None},
        {"prompt_token_ids": [1, 2, 8, 9], "token_ids": [5], "logprobs": None},
    ]
    with pytest.raises(TokenError, match="tokens that do not match"):
        episode_tokens(tokenizer, [], [], logged)


def test_a_conversation_without_a_reply_is_refused(tokenizer: Any) -> None:
    with pytest.raises(TokenError, match="nothing that the policy wrote"):
        episode_tokens(tokenizer, [{"role": "user", "content": "Hello"}], [], [])


@pytest.mark.parametrize(
    ("ids", "cause"),
    [
        ([3, -4], "tokens of another tokenizer"),
        ("three", "token ids that are not a list of integers"),
        ([3, "four"], "token ids that are not a list of integers"),
        (7, "token ids that are not a list of integers"),
    ],
)
@pytest.mark.parametrize("name", ["prompt_token_ids", "token_ids"])
def test_invalid_token_ids_are_refused(name: str, ids: Any, cause: str, tokenizer: Any) -> None:
    logged = {"prompt_token_ids": [1], "token_ids": [2], "logprobs": None, name: ids}
    with pytest.raises(TokenError, match=cause):
        episode_tokens(tokenizer, [], [], [logged])


def call(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": "{}"}}


def test_thoughts_that_name_the_tool_are_not_the_decision(tokenizer: Any) -> None:
    """Calls without a tag; the first turn only thinks of the rule tool and calls another."""
    thought = "<think>Should I call consult_safety_rules?</think>"
    other, consulting = ('{"name": "clock"}', '{"name": "consult_safety_rules"}')
    prompt, first, second = (
        tokenizer.encode(text) for text in ("Hello", thought + other, thought + consulting)
    )
    logged = [
        {"prompt_token_ids": prompt, "token_ids": first, "logprobs": None},
        {"prompt_token_ids": prompt + first, "token_ids": second, "logprobs": None},
    ]
    messages = [
        {"role": "assistant", "content": "", "tool_calls": [call("clock")]},
        {"role": "assistant", "content": "", "tool_calls": [call("consult_safety_rules")]},
    ]
    for turns_, messages_ in ((logged, messages), (logged[1:], messages[1:])):
        tokens = episode_tokens(tokenizer, messages_, [], turns_)
        decision = tokenizer.decode(tokens.completion_ids[slice(*tokens.decision)])
        assert decision.startswith('{"name": "consult_safety_rules')
        assert tokens.decision[0] >= len(tokens.completion_ids) - len(second)


def test_consultations_are_counted_by_name_outside_thoughts() -> None:
    quoted = 'A <tool_call> of "consult_safety_rules" would do.'
    rule = call("consult_safety_rules")
    assert consultations_of([{"role": "assistant", "content": f"<think>{quoted}</think>Yes."}]) == 0
    assert consultations_of([{"role": "assistant", "content": f"<think>Hm.</think>{quoted}"}]) == 1
    assert consultations_of([{"role": "assistant", "tool_calls": [rule, call("clock"), rule]}] * 2) == 4
