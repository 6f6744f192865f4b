"""The tokens of a logged episode, and which of them the policy wrote.

Only those carry loss: prompt, tool results and whatever the agent added are masked. Where the log holds the
token ids that the endpoint sampled, they are used as they are. Where it holds text alone, the chat template
shows it turn by turn: the best that such a log allows.

The *decision* is where an episode takes its mode: the tokens that open the first call of the rule tool, up to
and including its name, or else the first token of the answer, after any thoughts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trainer.tokens.modes import RULE_TOOL, mode_of
from trainer.tokens.rendering import RenderingError, render_turns

_AFTER_THOUGHTS = ("</think>", "<|start|>assistant")
_CALL = "<tool_call>"


class TokenError(ValueError):
    """An episode whose tokens cannot be had; the text is a cause to count."""


@dataclass(frozen=True)
class EpisodeTokens:
    """One episode as P prompt tokens and C completion tokens; the first of these is the policy's."""

    prompt_ids: list[int]
    completion_ids: list[int]
    wrote: list[int]
    """(C,) 1 where the policy wrote the token, else 0. A forced decision counts as written."""
    logprobs: list[float] | None
    """(C,) log-probabilities under the policy that sampled, 0 where it did not write; None if not logged, or
    if the mode was forced, by which the first tokens were not sampled freely."""
    decision: tuple[int, int] = (0, 0)
    """First position of the decision in the completion, and the one after its last."""

    @property
    def length(self) -> int:
        return len(self.prompt_ids) + len(self.completion_ids)


@dataclass(frozen=True)
class _Turn:
    prompt: list[int]
    reply: list[int]
    logprobs: list[float] | None
    text: str
    by_agent: bool = False


def episode_tokens(
    tokenizer: Any,
    messages: list[dict[str, Any]],
    tools: list[dict[str, Any]],
    turns: list[dict[str, Any]],
    *,
    forced: bool = False,
) -> EpisodeTokens:
    """Tokens from the log where every turn has them, else from the text.

    Args:
        messages: the conversation in OpenAI form.
        turns: of the episode, in order, with `finish_reason`, `prompt_token_ids`, `token_ids`, `logprobs`.
        forced: whether its mode was imposed; a call that the agent wrote is masked but for the decision.

    Raises:
        TokenError: the ids of one turn do not continue those before, are not the tokenizer's, or the policy
            wrote nothing.
    """
    replies = sum(message.get("role") == "assistant" for message in messages)
    by_agent = forced and replies > len(turns)  # a turn is logged for every message that the model wrote
    if turns and all(turn.get("prompt_token_ids") and turn.get("token_ids") for turn in turns):
        known = _logged(tokenizer, turns)
        if by_agent:
            known = [_agents_call(tokenizer, messages, tools, known[0].prompt), *known]
    else:
        known = _rendered(tokenizer, messages, tools, turns, by_agent)
    return _joined(tokenizer, known, mode_of(messages) == "consult", forced)


def _logged(tokenizer: Any, turns: list[dict[str, Any]]) -> list[_Turn]:
    size = len(tokenizer)
    known = []
    for turn in turns:
        prompt, reply = turn["prompt_token_ids"], turn["token_ids"]
        for ids in (prompt, reply):
            if not isinstance(ids, list) or not all(type(id) is int for id in ids):
                raise TokenError("token ids that are no list of whole numbers")
            if any(not 0 <= id < size for id in ids):
                raise TokenError("tokens of another tokenizer")
        known.append(
            _Turn(prompt, reply, _logprobs(turn.get("logprobs"), len(reply)), tokenizer.decode(reply))
        )
    return known


def _agents_call(
    tokenizer: Any, messages: list[dict[str, Any]], tools: list[dict[str, Any]], then: list[int]
) -> _Turn:
    """What the agent wrote and what it was told, as the next turn's prompt holds them."""
    asked = _encode(tokenizer, _shown(tokenizer, messages, tools)[0][0])
    if then[: len(asked)] != asked:
        raise TokenError("tokens that do not match")
    told = then[len(asked) :]
    return _Turn(asked, told, None, tokenizer.decode(told), by_agent=True)


def _rendered(
    tokenizer: Any,
    messages: list[dict[str, Any]],
    tools: list[dict[str, Any]],
    turns: list[dict[str, Any]],
    by_agent: bool,
) -> list[_Turn]:
    """Prompt and reply are tokenised apart, as the endpoint tokenised one and sampled the other."""
    known: list[_Turn] = []
    sofar: list[int] = []
    seen = ""
    for index, (prompt, reply) in enumerate(_shown(tokenizer, messages, tools)):
        first = by_agent and index == 0
        logged = turns[index - by_agent] if not first and index - by_agent < len(turns) else {}
        ids = _encode(tokenizer, reply)
        if logged.get("finish_reason") == "length" and ids and ids[-1] in tokenizer.all_special_ids:
            ids = ids[:-1]  # a reply that was cut off has no end token: the template added it
        asked = sofar + _encode(tokenizer, prompt[len(seen) :])
        known.append(_Turn(asked, ids, None, tokenizer.decode(ids), first))
        seen, sofar = prompt + reply, asked + _encode(tokenizer, reply)
    return known


def _shown(
    tokenizer: Any, messages: list[dict[str, Any]], tools: list[dict[str, Any]]
) -> list[tuple[str, str]]:
    try:
        shown = render_turns(tokenizer, messages, tools)
    except RenderingError as cause:
        raise TokenError(str(cause)) from None
    if not shown:
        raise TokenError("nothing that the policy wrote")
    return shown


def _joined(tokenizer: Any, turns: list[_Turn], consulted: bool, forced: bool) -> EpisodeTokens:
    completion, wrote, logprobs = list[int](), list[int](), list[float]()
    prompt = turns[0].prompt
    deciding = _deciding(turns, consulted)
    known, decision = not forced, (0, 0)
    for index, turn in enumerate(turns):
        before = prompt + completion
        if turn.prompt[: len(before)] != before:
            raise TokenError("tokens that do not match")
        between = turn.prompt[len(before) :]
        start = len(completion) + len(between)
        known &= turn.logprobs is not None
        completion += between + turn.reply
        wrote += [0] * len(between) + [0 if turn.by_agent else 1] * len(turn.reply)
        logprobs += [0.0] * len(between) + (turn.logprobs or [0.0] * len(turn.reply))
        if index == deciding:
            first, last = _decision(tokenizer, turn, consulted)
            decision = start + first, start + last
    if turns[0].by_agent:
        wrote[decision[0] : decision[1]] = [1] * (decision[1] - decision[0])
    if 1 not in wrote:
        raise TokenError("nothing that the policy wrote")
    return EpisodeTokens(prompt, completion, wrote, logprobs if known else None, decision)


def _deciding(turns: list[_Turn], consulted: bool) -> int:
    """Which turn took the mode: the first that names the rule tool, else the first."""
    naming = [i for i, turn in enumerate(turns) if consulted and RULE_TOOL in turn.text]
    # A turn whose thoughts alone name it, and that calls something else, has decided nothing yet.
    calling = [i for i in naming if RULE_TOOL in turns[i].text[_after_thoughts(turns[i].text) :]]
    return next(iter(calling or naming), 0)


def _after_thoughts(text: str) -> int:
    """Where a reply's last thoughts end; 0 where it has none."""
    return max((text.rfind(mark) + len(mark) for mark in _AFTER_THOUGHTS if mark in text), default=0)


def _decision(tokenizer: Any, turn: _Turn, consulted: bool) -> tuple[int, int]:
    """Where in a turn's reply the decision stands."""
    text = turn.text
    call = _called(text) if consulted else -1
    limit = call if call >= 0 else len(text)
    start = _after_thoughts(text[:limit])
    if consulted and (opening := text.rfind(_CALL, start, limit)) >= 0:
        start = opening
    while start < limit and text[start].isspace() and not consulted:
        start += 1
    first = min(_tokens_until(tokenizer, turn.reply, start + 1), len(turn.reply)) - 1
    last = _tokens_until(tokenizer, turn.reply, limit + len(RULE_TOOL)) if call >= 0 else first + 1
    return max(first, 0), max(last, first + 1)


def _called(text: str) -> int:
    """Where a reply calls the rule tool by name: after its thoughts, which may name it too."""
    for start in (_after_thoughts(text), 0):
        if (call := text.find(RULE_TOOL, max(text.find(_CALL, start), start))) >= 0:
            return call
    return -1


def _tokens_until(tokenizer: Any, ids: list[int], characters: int) -> int:
    """The fewest tokens whose text has that many characters, by bisection."""
    low, high = 1, len(ids)
    while low < high:
        middle = (low + high) // 2
        if len(tokenizer.decode(ids[:middle])) >= characters:
            high = middle
        else:
            low = middle + 1
    return low


def _encode(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids


def _logprobs(given: Any, length: int) -> list[float] | None:
    """One number a token, from a list or from Chat Completions' `{"content": [{"logprob": ...}]}`."""
    entries = given.get("content") if isinstance(given, dict) else given
    if not isinstance(entries, list) or len(entries) != length:
        return None
    numbers = [entry.get("logprob") if isinstance(entry, dict) else entry for entry in entries]
    known = [float(number) for number in numbers if isinstance(number, int | float)]
    return known if len(known) == length else None
