"""Renders a conversation as text, turn by turn: the prompt of each reply, and the reply.

A reply is the text that the chat template adds to the prompt of the request, up to its end token. A reply
must hold everything that the policy wrote, or the conversation cannot be used. Replies that were given, such
as those of earlier turns, are part of the first prompt, as the server rendered it.

A template may drop the thoughts of an earlier reply in the prompt of the next one. The conversation is then
joined with these thoughts kept, as in TRL's training templates: one sequence trains all replies.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from agent.episode import count_given_messages
from trainer.tokens.chat_template import (
    THOUGHT_FIELDS,
    Messages,
    RenderingError,
    Template,
    candidate_templates,
    generation_prompt,
    render,
    render_conversation,
    template_messages,
    thoughts_of,
    token_texts,
    without_thoughts,
)
from trainer.tokens.message_forms import (
    CALL_IDS,
    as_thoughts,
    complete_arguments,
    separate_thoughts,
    with_call_ids,
)
from trainer.tokens.prompt_end import (
    closing_of,
    opened_marks,
    opens_thoughts,
    text_after_prompt,
    text_without_header,
)
from trainer.tokens.written_text import MissingTextError, split_added_thoughts, written_end

_ALL_THOUGHT_FIELDS = (*THOUGHT_FIELDS, "reasoning")
_REWRITES = "its template rewrites earlier turns"


@dataclass(frozen=True)
class RenderedTurn:
    """An assistant message as text."""

    request: str
    """Prompt as the endpoint rendered it when the model was asked."""
    prompt: str
    """Text before what the policy wrote: the request and text that the template puts after it. Where the
    request rewrites earlier replies, they stand here as they were written."""
    reply: str
    """Text that the policy wrote, up to its end token."""
    end: int
    """Position in the reply after the last field of the message; marks that the template adds follow."""


def render_turns(
    tokenizer: Any,
    messages: Messages,
    tools: list[dict[str, Any]],
    template_options: Mapping[str, Any] | None = None,
    *,
    given: int = 0,
    truncated: Collection[int] = (),
) -> list[RenderedTurn]:
    """Renders every assistant message that was not given; each prompt begins with all text before it.

    Every reply holds the thoughts, the content and the calls of its message.

    Args:
        template_options: `chat_template_kwargs` of the sampler, such as `{"enable_thinking": False}`, and the
            day of the episode (`DAY_OPTION`).
        given: number of messages that are only a prompt: replies among them belong to earlier turns.
        truncated: numbers of the replies, from 0, that were cut off by a token limit. Arguments of their
            calls may be incomplete; only the text up to `RenderedTurn.end` is then the policy's.

    Raises:
        RenderingError: no form of the tokenizer's template can do this.
    """
    own = [at for at, each in enumerate(messages) if at >= given and each["role"] == "assistant"]
    cut = {own[number] for number in truncated if number < len(own)}
    thoughts = any(thoughts_of(messages[at]) for at in own)
    causes = list[RenderingError]()
    for form in _message_forms(messages, own, cut):
        for template in candidate_templates(tokenizer, tools, template_options, thoughts=thoughts):
            try:
                return _render_turns(tokenizer, template, list(form), tools, own, cut)
            except RenderingError as cause:
                # An error of the template is less informative than the text that another form of it leaves
                # out.
                if causes and causes[0].detail and not cause.detail:
                    causes.insert(0, cause)
                causes.append(cause)
    raise causes[0]


def render_training_tokens(
    tokenizer: Any,
    messages: Messages,
    tools: list[dict[str, Any]],
    template_options: Mapping[str, Any] | None = None,
    *,
    given: int | None = None,
) -> tuple[list[int], list[int]]:
    """Tokenises a conversation for supervised training, with the arguments of `render_turns`.

    Args:
        given: number of messages that are only a prompt: replies among them carry no loss. None for those up
            to the user's last message.

    Returns:
        (T,) token ids, and a (T,) mask that is 1 on what the assistant wrote.

    Raises:
        RenderingError: no form of the tokenizer's template can do this, or the assistant wrote nothing.
    """
    given = count_given_messages(messages, given)
    turns = render_turns(tokenizer, messages, tools, template_options, given=given)
    if not turns:
        raise RenderingError("nothing that the assistant wrote")
    ids, mask = list[int](), list[int]()
    before = ""
    for turn in turns:
        for text, in_loss in ((turn.prompt[len(before) :], 0), (turn.reply, 1)):
            added = tokenizer.encode(text, add_special_tokens=False)
            ids += added
            mask += [in_loss] * len(added)
        before = turn.prompt + turn.reply
    return ids, mask


def turn_end_ids(tokenizer: Any) -> list[int]:
    """Returns the tokens with which the chat template ends a turn: an answer, or a call.

    A tokenizer names one end token, but templates often end turns with others (`<|eot_id|>`, `<|call|>`).
    The list is empty without a template, or for a template that ends turns with the next turn's beginning.
    """
    template = tokenizer.chat_template
    return list(_turn_end_ids(tokenizer, json.dumps(template))) if template else []


@lru_cache(maxsize=8)
def _turn_end_ids(tokenizer: Any, cache_key: str) -> tuple[int, ...]:
    user = {"role": "user", "content": "x"}
    answer = {"role": "assistant", "content": "x"}
    added = tokenizer.added_tokens_decoder
    special = {*tokenizer.all_special_ids, *(id for id, token in added.items() if token.special)}
    ends = []
    # A call may end with a tag such as `</tool_call>`, which ends no turn and is not special.
    for reply, candidates in ((answer, {*special, *added}), (_probe_call(), special)):
        try:
            text = render_turns(tokenizer, [user, reply], [])[-1].reply
        except RenderingError:
            continue
        ids = tokenizer.encode(text, add_special_tokens=False)
        if ids and ids[-1] in candidates and ids[-1] not in ends:
            ends.append(ids[-1])
    return tuple(ends)


def _message_forms(messages: Messages, own: list[int], cut: set[int]) -> list[Messages]:
    """Returns the messages as logged, then in equivalent forms that more templates can render."""
    forms = [messages]
    separated, completed = list(messages), list(messages)
    for at in own:
        separated[at] = separate_thoughts(messages[at])
    if separated != messages:
        forms.append(separated)
    for at in cut:
        completed[at] = complete_arguments(messages[at])
    if completed != messages:
        forms.append(completed)
    if any(messages[at].get("tool_calls") for at in own):
        forms += [with_call_ids(messages, each) for each in CALL_IDS]
    return forms


def _render_turns(
    tokenizer: Any,
    template: Template,
    messages: Messages,
    tools: list[dict[str, Any]],
    own: list[int],
    cut: set[int],
) -> list[RenderedTurn]:
    prepared = template_messages(tokenizer, messages, template.source)
    turns: list[RenderedTurn] = []
    for number, at in enumerate(own):
        request = render(tokenizer, template, prepared[:at], tools, prompt=True)
        if at in cut and opens_thoughts(request):
            messages[at] = as_thoughts(messages[at])
            prepared[at] = template_messages(tokenizer, messages[at : at + 1], template.source)[0]
        prompt = request
        if turns:
            earlier = own[number - 1]
            base = render_conversation(tokenizer, template, prepared[:earlier], tools)
            prompt = _continued(turns[-1], request, base, messages[earlier])
        rendered = _render_reply(tokenizer, template, prepared[:at], prepared[at], tools, request)
        added, reply = _split_reply(tokenizer, template, request, rendered, messages[at])
        end = _written_end(reply, messages[at])
        if not messages[at].get("tool_calls"):
            reply = _trim_after_first_end_token(reply, end, tokenizer)
        reply = _trim_after_end_token(reply, tokenizer)
        if not _ends_turn(tokenizer, reply, messages[at]):
            reply += _next_turn_token(tokenizer, template, bool(messages[at].get("tool_calls")))
        turns.append(RenderedTurn(request, prompt + added, reply, end))
    return turns


def _continued(last: RenderedTurn, request: str, base: str, message: dict[str, Any]) -> str:
    """Returns the prompt that continues the last turn: its text, and what `request` shows after its reply.

    Args:
        request: prompt of the next reply. It may show the last reply without its thoughts.
        base: text before the last reply in `request`.
        message: the last reply.
    """
    before = last.prompt + last.reply
    if request.startswith(before):
        return request
    if not request.startswith(base):
        raise RenderingError(_REWRITES)
    shown = {key: value for key, value in message.items() if key not in _ALL_THOUGHT_FIELDS}
    try:
        end = len(base) + written_end(request[len(base) :], shown)
    except MissingTextError:
        raise RenderingError(_REWRITES) from None
    closing = last.reply[last.end :]
    if not request.startswith(closing, end):
        raise RenderingError(_REWRITES)
    return before + request[end + len(closing) :]


def _render_reply(
    tokenizer: Any,
    template: Template,
    earlier: Messages,
    message: dict[str, Any],
    tools: list[dict[str, Any]],
    request: str,
) -> str:
    """Returns the text that the template adds for a message to `request`, the prompt of its request.

    Some templates, such as gpt-oss's, show the thoughts before a call in the prompt but drop them once the
    answer follows. Without these thoughts, prompt and conversation begin alike. DeepSeek-V3's writes only the
    first call of a conversation in full, so the reply is also rendered as the first one.
    """
    bare = without_thoughts(earlier)
    histories = [earlier] if bare == earlier else [earlier, bare]
    header = generation_prompt(tokenizer, template)
    if header and request.endswith(header):
        histories.append([{"role": "user", "content": "x"}])
    for history in histories:
        asked = request if history is earlier else render(tokenizer, template, history, tools, prompt=True)
        whole = render_conversation(tokenizer, template, [*history, message], tools)
        if (text := text_after_prompt(asked, whole, message)) is not None:
            return text
    base = render_conversation(tokenizer, template, earlier, tools)
    whole = render_conversation(tokenizer, template, [*earlier, message], tools)
    if (text := text_without_header(base, request, whole)) is not None:
        return text
    raise RenderingError(_REWRITES)


def _split_reply(
    tokenizer: Any, template: Template, request: str, rendered: str, message: dict[str, Any]
) -> tuple[str, str]:
    """Separates text that the template added before a reply from what the policy wrote."""
    header = generation_prompt(tokenizer, template)
    header = header if rendered.startswith(header) else ""
    body = rendered[len(header) :]
    thoughts = (thoughts_of(message) or "").strip()
    opened = opened_marks(request)
    marks = _thought_marks(tokenizer, template, in_call=False)
    if thoughts and thoughts not in body:
        # Gemma 4 shows thoughts before a call, but not before an answer; DeepSeek-V3's only asks for them.
        plain = {key: value for key, value in message.items() if key not in _ALL_THOUGHT_FIELDS}
        _, body = split_added_thoughts(body, plain, request, marks)
        if opened:
            return header, thoughts + opened[1] + body
        shown = _thought_marks(tokenizer, template, in_call=True)
        for found in (shown, opened_marks(generation_prompt(tokenizer, template))):
            if found and all(mark.strip() for mark in found):
                return header, found[0] + thoughts + found[1] + body
    if opened and not thoughts and opened[1].strip() not in body:
        body = opened[1] + body  # the template does not close the thoughts that the prompt opens
    added, reply = split_added_thoughts(body, message, request, marks)
    return header + added, reply


def _written_end(reply: str, message: dict[str, Any]) -> int:
    try:
        return written_end(reply, message)
    except MissingTextError as missing:
        raise RenderingError(f"its template leaves out {missing}") from None


@lru_cache(maxsize=16)
def _thought_marks(tokenizer: Any, template: Template, *, in_call: bool) -> tuple[str, str] | None:
    """Returns the text before and after the thoughts of a reply; None if the template shows none.

    The text before is empty if the prompt opens the thoughts.
    """
    user = {"role": "user", "content": "x"}
    reply = _probe_call() if in_call else {"role": "assistant", "content": "probe-answer"}
    thinking = {**reply, **dict.fromkeys(THOUGHT_FIELDS, "probe-thought")}
    try:
        request = render(tokenizer, template, [user], [], prompt=True)
        messages = template_messages(tokenizer, [user, reply, thinking], template.source)
        plain, text = (
            _render_reply(tokenizer, template, messages[:1], each, [], request) for each in messages[1:]
        )
    except RenderingError:
        return None
    opening, found, rest = text.partition("probe-thought")
    if not found:
        return None
    if not in_call:
        closing, answered, _ = rest.partition("probe-answer")
        return (opening, closing) if answered else None
    if rest.endswith(plain):
        return opening, rest.removesuffix(plain)
    return opening, closing_of(opening, rest)


def _ends_turn(tokenizer: Any, reply: str, message: dict[str, Any]) -> bool:
    """Returns whether a reply ends with an end token, and not with a tag such as `</tool_call>`."""
    texts = token_texts(tokenizer)
    return reply.endswith(tuple(texts.special if message.get("tool_calls") else texts.all))


@lru_cache(maxsize=16)
def _next_turn_token(tokenizer: Any, template: Template, after_call: bool) -> str:
    """Returns the special token that begins the turn after a reply; empty if the template has none.

    Models whose templates have no end token, such as GLM's, end a turn with this token.
    """
    user = {"role": "user", "content": "x"}
    reply = _probe_call() if after_call else {"role": "assistant", "content": "x"}
    following = {"role": "tool", "tool_call_id": "call00001", "content": "x"} if after_call else user
    try:
        messages = template_messages(tokenizer, [user, reply, following], template.source)
        before, after = (render_conversation(tokenizer, template, messages[:n], []) for n in (2, 3))
    except RenderingError:
        return ""
    if not after.startswith(before.rstrip()):
        return ""
    rest = after[len(before.rstrip()) :]
    special = token_texts(tokenizer).special
    return max((token for token in special if rest.startswith(token)), key=len, default="")


def _probe_call() -> dict[str, Any]:
    function = {"name": "probe_tool", "arguments": '{"probe": "x"}'}
    call = {"id": "call00001", "type": "function", "function": function}
    return {"role": "assistant", "content": "", "tool_calls": [call]}


def _trim_after_first_end_token(reply: str, end: int, tokenizer: Any) -> str:
    """Removes what follows an end token and whitespace, such as the end token of the conversation."""
    ends = [
        at + len(token) for token in token_texts(tokenizer).special if (at := reply.find(token, end)) >= 0
    ]
    first = min(ends, default=len(reply))
    return reply[:first] if reply[first:].lstrip() != reply[first:] else reply


def _trim_after_end_token(reply: str, tokenizer: Any) -> str:
    """Removes the text after the end token, such as a line break: the template wrote it, not the model."""
    tokens = token_texts(tokenizer).all
    end = max((reply.rfind(token) + len(token) for token in tokens if token in reply), default=0)
    return reply[:end] if end and not reply[end:].strip() else reply
