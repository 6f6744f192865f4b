"""The tokens of a logged episode, and which of them the policy wrote.

Only those carry loss: prompt, tool results and whatever the agent added are masked. Where the log holds the
token ids that the endpoint sampled, they are used as they are. Where it holds text alone, the chat template
renders it, and its `generation` blocks mark the model's own part: the best that such a log allows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class TokenError(ValueError):
    """An episode whose tokens cannot be had; the text is a cause to count."""


@dataclass(frozen=True)
class EpisodeTokens:
    """One episode as P prompt tokens and C completion tokens; the first of these is the policy's."""

    prompt_ids: list[int]
    completion_ids: list[int]
    wrote: list[int]
    """(C,) 1 where the policy wrote the token, else 0."""
    logprobs: list[float] | None
    """(C,) log-probabilities under the policy that sampled, 0 where it did not write; None if not logged."""

    @property
    def length(self) -> int:
        return len(self.prompt_ids) + len(self.completion_ids)


def episode_tokens(
    tokenizer: Any, messages: list[dict[str, Any]], tools: list[dict[str, Any]], turns: list[dict[str, Any]]
) -> EpisodeTokens:
    """Tokens from the log where every turn has them, else from the text.

    Args:
        messages: the conversation in OpenAI form.
        turns: of the episode, in order, with `finish_reason`, `prompt_token_ids`, `token_ids`, `logprobs`.

    Raises:
        TokenError: the ids of one turn do not continue those before, or the policy wrote nothing.
    """
    if turns and all(turn.get("prompt_token_ids") and turn.get("token_ids") for turn in turns):
        return _logged(turns)
    return _rendered(tokenizer, messages, tools, turns)


def _logged(turns: list[dict[str, Any]]) -> EpisodeTokens:
    prompt_ids: list[int] = turns[0]["prompt_token_ids"]
    completion, wrote, logprobs = list[int](), list[int](), list[float]()
    known = True
    for turn in turns:
        before = prompt_ids + completion
        asked = turn["prompt_token_ids"]
        if asked[: len(before)] != before:
            raise TokenError("tokens that do not match")
        between = asked[len(before) :]
        sampled = turn["token_ids"]
        scores = _logprobs(turn.get("logprobs"), len(sampled))
        known &= scores is not None
        completion += between + sampled
        wrote += [0] * len(between) + [1] * len(sampled)
        logprobs += [0.0] * len(between) + (scores or [])
    return EpisodeTokens(prompt_ids, completion, wrote, logprobs if known else None)


def _logprobs(given: Any, length: int) -> list[float] | None:
    """One number a token, from a list or from Chat Completions' `{"content": [{"logprob": ...}]}`."""
    entries = given.get("content") if isinstance(given, dict) else given
    if not isinstance(entries, list) or len(entries) != length:
        return None
    numbers = [entry.get("logprob") if isinstance(entry, dict) else entry for entry in entries]
    known = [float(number) for number in numbers if isinstance(number, int | float)]
    return known if len(known) == length else None


def _rendered(
    tokenizer: Any, messages: list[dict[str, Any]], tools: list[dict[str, Any]], turns: list[dict[str, Any]]
) -> EpisodeTokens:
    rendered = tokenizer.apply_chat_template(
        messages, tools=tools or None, return_dict=True, return_assistant_tokens_mask=True
    )
    ids, wrote = list(rendered["input_ids"]), list(rendered["assistant_masks"])
    for turn, last in zip(turns, _ends(wrote), strict=False):
        if turn.get("finish_reason") == "length":
            wrote[last] = 0  # a reply that was cut off has no end token: the template added it
    if 1 not in wrote:
        raise TokenError("nothing that the policy wrote")
    first, last = wrote.index(1), len(wrote) - wrote[::-1].index(1)
    return EpisodeTokens(ids[:first], ids[first:last], wrote[first:last], None)


def _ends(wrote: list[int]) -> list[int]:
    """The last position of every run of ones: one run is one reply."""
    return [i for i, here in enumerate(wrote) if here and (i + 1 == len(wrote) or not wrote[i + 1])]
