"""Tokens of a logged episode, and which of them the policy wrote.

Only the policy's tokens contribute to the loss; the prompt, tool results and text that the agent added are
masked. If the log contains the token ids that the endpoint sampled, they are used unchanged. If it contains
only text, the chat template renders it turn by turn, which is the best approximation.

The *decision* is the position where an episode takes its mode: the tokens that open the first call of the
rule tool, up to and including its name, or else the first token of the answer, after any reasoning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from agent.episode import count_given_messages
from agent.tools import RULE_TOOL
from trainer.tokens.chat_template import RenderingError, on_neighbouring_days
from trainer.tokens.modes import mode_of
from trainer.tokens.rendering import RenderedTurn, render_turns

_THOUGHT_ENDS = ("</think>", "<|start|>assistant")
_CALL_TAG = "<tool_call>"


MIN_LOGPROB, MAX_LOGPROB = -50.0, 0.01
"""Bounds of the log-probability of a sampled token. A token below, of probability 2e-22, is never sampled:
servers log values such as -9999 as placeholders. Rounding may give values slightly above 0."""


class TokenError(ValueError):
    """The tokens of an episode cannot be determined.

    The message is the exclusion reason under which the episode is counted.
    """

    def __init__(self, cause: str, detail: str = "") -> None:
        super().__init__(cause)
        self.detail = detail
        """Description of the fault for the user; empty if the cause needs no explanation."""


@dataclass(frozen=True)
class EpisodeTokens:
    """One episode as P prompt tokens and C completion tokens; the policy wrote the first completion token."""

    prompt_ids: list[int]
    completion_ids: list[int]
    loss_mask: list[int]
    """(C,) 1 where the policy wrote the token, else 0. A forced decision counts as written."""
    logprobs: list[float] | None
    """(C,) log-probabilities under the policy that sampled, 0 outside the loss mask. None if they were not
    logged, or if the mode was forced, because the first tokens were then not sampled freely."""
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
    """Decoded reply."""
    by_agent: bool = False
    """Whether the agent wrote the reply, to force a consultation."""


def episode_tokens(
    tokenizer: Any,
    messages: list[dict[str, Any]],
    tools: list[dict[str, Any]],
    turns: list[dict[str, Any]],
    *,
    forced: bool = False,
    template_options: Mapping[str, Any] | None = None,
    given: int | None = None,
) -> EpisodeTokens:
    """Returns the tokens of an episode: logged ids if every turn has them, else those of the rendered text.

    Args:
        messages: the conversation in OpenAI form.
        turns: turns of the episode in order, with `finish_reason`, `prompt_token_ids`, `token_ids`,
            `logprobs`.
        forced: whether the mode was forced; of a call that the agent wrote, only the decision contributes to
            the loss.
        template_options: see `render_turns`.
        given: number of messages before the episode's replies, see `count_given_messages`; the replies among
            them are part of the prompt. None for those up to the user's last message.

    Raises:
        TokenError: the ids of one turn do not continue the previous ones or are not the tokenizer's, the
            template cannot render the episode, the policy wrote nothing, or a log-probability is impossible.
    """
    given = count_given_messages(messages, given)
    replies = sum(message.get("role") == "assistant" for message in messages[given:])
    by_agent = forced and replies > len(turns)  # the log has one turn per message that the model wrote
    truncated = [at + by_agent for at, turn in enumerate(turns) if turn.get("finish_reason") == "length"]
    rendered = partial(
        _render_replies,
        tokenizer,
        messages,
        tools,
        given=given,
        truncated=truncated,
    )
    if turns and all(turn.get("prompt_token_ids") and turn.get("token_ids") for turn in turns):
        parsed = _logged_turns(tokenizer, turns)
        if by_agent:
            days = on_neighbouring_days(template_options)
            first_turns = (rendered(options)[0] for options in days)
            parsed = [_agent_turn(tokenizer, first_turns, parsed[0].prompt), *parsed]
    else:
        parsed = _rendered_turns(tokenizer, rendered(template_options), turns, by_agent)
    return _join(tokenizer, parsed, mode_of(messages, given=given) == "consult", forced)


def _logged_turns(tokenizer: Any, turns: list[dict[str, Any]]) -> list[_Turn]:
    size = len(tokenizer)
    parsed = []
    for turn in turns:
        prompt, reply = turn["prompt_token_ids"], turn["token_ids"]
        for ids in (prompt, reply):
            if not isinstance(ids, list) or not all(type(id) is int for id in ids):
                raise TokenError("token ids that are not a list of integers")
            if any(not 0 <= id < size for id in ids):
                raise TokenError("tokens of another tokenizer")
        logprobs = _parse_logprobs(turn.get("logprobs"), len(reply))
        parsed.append(_Turn(prompt, reply, logprobs, tokenizer.decode(reply)))
    return parsed


def _agent_turn(tokenizer: Any, rendered: Iterable[RenderedTurn], next_prompt: list[int]) -> _Turn:
    """Recovers the call that the agent wrote, with its result, from the prompt of the turn after it.

    Args:
        rendered: the turn as it may have been rendered; the first one that matches counts.
    """
    for turn in rendered:
        for text in (turn.prompt, turn.request):
            prompt = _encode(tokenizer, text)
            if next_prompt[: len(prompt)] == prompt:
                added = next_prompt[len(prompt) :]
                return _Turn(prompt, added, None, tokenizer.decode(added), by_agent=True)
    raise TokenError("tokens that do not match")


def _rendered_turns(
    tokenizer: Any, rendered: list[RenderedTurn], turns: list[dict[str, Any]], by_agent: bool
) -> list[_Turn]:
    """Tokenises prompts and replies separately: the endpoint tokenised the former and sampled the latter."""
    parsed: list[_Turn] = []
    ids_before: list[int] = []
    text_before = ""
    for index, turn in enumerate(rendered):
        is_agent_turn = by_agent and index == 0
        logged = turns[index - by_agent] if not is_agent_turn and index - by_agent < len(turns) else {}
        # What follows the last field of a truncated reply is not the policy's: `</think>`, an end token.
        end = turn.end if logged.get("finish_reason") == "length" else len(turn.reply)
        ids = _encode(tokenizer, turn.reply[:end])
        prompt_ids = ids_before + _encode(tokenizer, turn.prompt[len(text_before) :])
        parsed.append(_Turn(prompt_ids, ids, None, tokenizer.decode(ids), is_agent_turn))
        text_before = turn.prompt + turn.reply
        ids_before = prompt_ids + ids + _encode(tokenizer, turn.reply[end:])
    return parsed


def _render_replies(
    tokenizer: Any,
    messages: list[dict[str, Any]],
    tools: list[dict[str, Any]],
    template_options: Mapping[str, Any] | None,
    *,
    given: int,
    truncated: list[int],
) -> list[RenderedTurn]:
    try:
        rendered = render_turns(
            tokenizer,
            messages,
            tools,
            template_options,
            given=given,
            truncated=truncated,
        )
    except RenderingError as cause:
        raise TokenError(str(cause), cause.detail) from None
    if not rendered:
        raise TokenError("nothing that the policy wrote")
    return rendered


def _join(tokenizer: Any, turns: list[_Turn], consulted: bool, forced: bool) -> EpisodeTokens:
    """Joins turns to one completion; the tokens between two replies are masked."""
    completion, loss_mask, logprobs = list[int](), list[int](), list[float]()
    prompt = turns[0].prompt
    deciding = _deciding_turn(turns, consulted)
    has_logprobs, decision = not forced, (0, 0)
    for index, turn in enumerate(turns):
        before = prompt + completion
        if turn.prompt[: len(before)] != before:
            raise TokenError("tokens that do not match")
        between = turn.prompt[len(before) :]
        start = len(completion) + len(between)
        has_logprobs &= turn.logprobs is not None
        completion += between + turn.reply
        loss_mask += [0] * len(between) + [0 if turn.by_agent else 1] * len(turn.reply)
        logprobs += [0.0] * len(between) + (turn.logprobs or [0.0] * len(turn.reply))
        if index == deciding:
            first, last = _decision_span(tokenizer, turn, consulted)
            decision = start + first, start + last
    if turns[0].by_agent:
        loss_mask[decision[0] : decision[1]] = [1] * (decision[1] - decision[0])
    if 1 not in loss_mask:
        raise TokenError("nothing that the policy wrote")
    if has_logprobs:
        _check_logprobs(tokenizer, completion, loss_mask, logprobs)
    return EpisodeTokens(prompt, completion, loss_mask, logprobs if has_logprobs else None, decision)


def _check_logprobs(
    tokenizer: Any, completion: list[int], loss_mask: list[int], logprobs: list[float]
) -> None:
    """Raises TokenError if a token of the policy has a log-probability that no sampler gives."""
    for index, (id, in_loss, logprob) in enumerate(zip(completion, loss_mask, logprobs, strict=True)):
        if in_loss and not MIN_LOGPROB <= logprob <= MAX_LOGPROB:
            raise TokenError(
                "a log-probability that no sampler gives",
                f"token {index} of the completion, {tokenizer.decode([id])!r}, has the log-probability "
                f"{logprob:g}: the server logged a placeholder, or not the distribution that it sampled from",
            )


def _deciding_turn(turns: list[_Turn], consulted: bool) -> int:
    """Returns the index of the turn that decides: the first that names the rule tool, else the first."""
    naming = [i for i, turn in enumerate(turns) if consulted and RULE_TOOL in turn.text]
    # A turn that only thinks of the rule tool, and calls something else, has not decided yet.
    calling = [i for i in naming if RULE_TOOL in turns[i].text[_thoughts_end(turns[i].text) :]]
    return next(iter(calling or naming), 0)


def _thoughts_end(text: str) -> int:
    """Returns the end of a reply's last thoughts; 0 if it has none."""
    return max((text.rfind(mark) + len(mark) for mark in _THOUGHT_ENDS if mark in text), default=0)


def _decision_span(tokenizer: Any, turn: _Turn, consulted: bool) -> tuple[int, int]:
    """Returns the first token of the decision in a turn's reply, and the one after its last."""
    text = turn.text
    name = _find_call(text) if consulted else -1
    limit = name if name >= 0 else len(text)
    start = _thoughts_end(text[:limit])
    if consulted and (opening := text.rfind(_CALL_TAG, start, limit)) >= 0:
        start = opening
    while start < limit and text[start].isspace() and not consulted:
        start += 1
    first = min(_tokens_until(tokenizer, turn.reply, start + 1), len(turn.reply)) - 1
    last = _tokens_until(tokenizer, turn.reply, limit + len(RULE_TOOL)) if name >= 0 else first + 1
    return max(first, 0), max(last, first + 1)


def _find_call(text: str) -> int:
    """Returns the position of the tool's name in a call, preferably after the thoughts; -1 if there is
    none."""
    for start in (_thoughts_end(text), 0):
        if (name := text.find(RULE_TOOL, max(text.find(_CALL_TAG, start), start))) >= 0:
            return name
    return -1


def _tokens_until(tokenizer: Any, ids: list[int], characters: int) -> int:
    """Returns the smallest number of tokens whose text has that many characters, by bisection.

    The search doubles from the first token, because most decisions lie at the beginning of a long reply.
    """
    low = high = 1
    while high < len(ids) and len(tokenizer.decode(ids[:high])) < characters:
        low, high = high + 1, min(2 * high, len(ids))
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


def _parse_logprobs(logged: Any, length: int) -> list[float] | None:
    """Returns one number per token, from a list or from Chat Completions' `{"content": [{"logprob": ...}]}`.

    Returns None if there are not `length` numbers.
    """
    entries = logged.get("content") if isinstance(logged, dict) else logged
    if not isinstance(entries, list) or len(entries) != length:
        return None
    values = [entry.get("logprob") if isinstance(entry, dict) else entry for entry in entries]
    numbers = [float(value) for value in values if isinstance(value, int | float)]
    return numbers if len(numbers) == length else None
