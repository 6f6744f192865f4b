"""Renders a conversation as text, turn by turn: the prompt of each reply, and the reply.

A reply is the text that the chat template adds to the prompt that asked for it, up to its end token. This
works for any template that renders a conversation as the model saw it grow, with or without `generation`
marks. For templates that rewrite earlier turns (Qwen3 drops earlier thoughts), TRL's training template is
used. A reply must hold everything that the policy wrote, or the conversation cannot be used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from agent.episode import count_given_messages
from trainer.tokens.generation_marks import without_earlier_replies
from trainer.tokens.written_text import MissingTextError, split_added_thoughts, written_end

_THOUGHT_FIELDS = ("reasoning_content", "thinking")
"""Names under which templates read the thoughts of a message."""


class RenderingError(ValueError):
    """The template cannot render a conversation turn by turn.

    The message is the exclusion reason under which the episode is counted.
    """

    def __init__(self, cause: str, detail: str = "") -> None:
        super().__init__(cause)
        self.detail = detail
        """Description of the fault for the user, such as the template's own message; may be empty."""


@dataclass(frozen=True)
class RenderedTurn:
    """An assistant message as text."""

    request: str
    """Prompt as the endpoint rendered it when the model was asked."""
    prompt: str
    """The request, and text that the template puts between it and what the policy wrote."""
    reply: str
    """Text that the policy wrote, up to its end token."""
    end: int
    """Position in the reply after the last field of the message; marks that the template adds follow."""


class _Template(NamedTuple):
    source: str
    options: str = "{}"
    """Variables of the template besides messages and tools, as JSON."""


def render_turns(
    tokenizer: Any,
    messages: list[dict[str, Any]],
    tools: list[dict[str, Any]],
    template_options: Mapping[str, Any] | None = None,
    *,
    given: int = 0,
) -> list[RenderedTurn]:
    """Renders every assistant message; each prompt begins with all text before it.

    Every reply holds the thoughts, the content and the calls of its message.

    Args:
        template_options: `chat_template_kwargs` of the sampler, such as `{"enable_thinking": False}`.
        given: number of messages that are only a prompt: replies among them belong to earlier turns.

    Raises:
        RenderingError: neither the tokenizer's template nor TRL's training template can do this.
    """
    options = json.dumps(dict(template_options or {}))
    try:
        template = _Template(_template(tokenizer, tools), options)
        return _render_turns(tokenizer, template, messages, tools, given)
    except RenderingError as cause:
        if (training_template := _training_template(tokenizer)) is None:
            raise
        try:
            return _render_turns(tokenizer, _Template(training_template, options), messages, tools, given)
        except RenderingError:
            raise cause from None


def render_training_tokens(
    tokenizer: Any, messages: list[dict[str, Any]], tools: list[dict[str, Any]], *, given: int | None = None
) -> tuple[list[int], list[int]]:
    """Tokenises a conversation for supervised training, with the template's own `generation` marks.

    Args:
        given: number of messages that are only a prompt: replies among them carry no loss. None for those up
            to the user's last message.

    Returns:
        (T,) token ids, and a (T,) mask that is 1 on what the assistant wrote.

    Raises:
        RenderingError: the template cannot render the conversation, marks nothing in it, or leaves out
            thoughts, content or calls of the assistant.
        ValueError: neither the template nor TRL's training form of it has marks.
    """
    template = marked_template(tokenizer)
    prepared = template_messages(tokenizer, messages, template)
    given = count_given_messages(messages, given)
    ids, mask = _marked_tokens(tokenizer, template, prepared, tools)
    if any(message["role"] == "assistant" for message in messages[:given]):
        _, earlier = _marked_tokens(tokenizer, template, prepared[:given], tools)
        mask = without_earlier_replies(mask, earlier)
    if 1 not in mask:
        raise RenderingError("its template marks nothing that the assistant wrote")
    marked = [id for id, in_loss in zip(ids, mask, strict=True) if in_loss]
    text = tokenizer.decode(marked, clean_up_tokenization_spaces=False)
    for message in messages[given:]:
        if message["role"] == "assistant":
            text = text[_written_end(text, message) :]
    return ids, mask


def _marked_tokens(
    tokenizer: Any, template: str, prepared: list[dict[str, Any]], tools: list[dict[str, Any]]
) -> tuple[list[int], list[int]]:
    options = {"return_dict": True, "return_assistant_tokens_mask": True}
    tokens = _apply(tokenizer, _Template(template), prepared, tools, **options)
    return tokens["input_ids"], tokens["assistant_masks"]


def marked_template(tokenizer: Any) -> str:
    """Returns the chat template if it has `generation` marks, else TRL's training form of it.

    Raises:
        ValueError: TRL has none.
    """
    from trl.chat_template_utils import has_generation_markers

    try:
        template: str | None = _template(tokenizer, [])
    except RenderingError as cause:
        raise ValueError(str(cause)) from None
    if not has_generation_markers(template):
        template = _training_template(tokenizer)
    if template is None:
        raise ValueError("the chat template does not mark what the assistant wrote")
    return template


def _template(tokenizer: Any, tools: list[dict[str, Any]]) -> str:
    """Returns the template that `apply_chat_template` uses: one of several if the tokenizer names them.

    Raises:
        RenderingError: the tokenizer has none.
    """
    try:
        template: str = tokenizer.get_chat_template(None, tools or None)
    except Exception as error:
        raise RenderingError("its tokenizer has no chat template", str(error)) from None
    return template


def _training_template(tokenizer: Any) -> str | None:
    """Returns TRL's training form of the tokenizer's template; None if TRL has none or needs none."""
    from trl.chat_template_utils import get_training_chat_template

    try:
        template: str | None = get_training_chat_template(tokenizer)
    except Exception:  # TRL raises ValueError, and also what the template raises when TRL renders probes
        return None
    return template


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
    function = {"name": "probe_tool", "arguments": '{"probe": "x"}'}
    call = {"role": "assistant", "content": "", "tool_calls": [_call("call000001", function)]}
    added = tokenizer.added_tokens_decoder
    special = {*tokenizer.all_special_ids, *(id for id, token in added.items() if token.special)}
    ends = []
    # A call may end with a tag such as `</tool_call>`, which ends no turn and is not special.
    for reply, candidates in ((answer, {*special, *added}), (call, special)):
        try:
            text = render_turns(tokenizer, [user, reply], [])[-1].reply
        except RenderingError:
            continue
        ids = tokenizer.encode(text, add_special_tokens=False)
        if ids and ids[-1] in candidates and ids[-1] not in ends:
            ends.append(ids[-1])
    return tuple(ends)


def _render_turns(
    tokenizer: Any,
    template: _Template,
    messages: list[dict[str, Any]],
    tools: list[dict[str, Any]],
    given: int,
) -> list[RenderedTurn]:
    prepared = template_messages(tokenizer, messages, template.source)
    turns: list[RenderedTurn] = []
    before = ""
    for index, message in enumerate(prepared):
        if message["role"] != "assistant" or index < given:
            continue
        request = _render(tokenizer, template, prepared[:index], tools, True)
        if not request.startswith(before):
            raise RenderingError("its template rewrites earlier turns")
        rendered = _render_reply(tokenizer, template, prepared[:index], message, tools, request)
        turns.append(_split_turn(tokenizer, template, request, rendered, messages[index]))
        before = turns[-1].prompt + turns[-1].reply
    return turns


def _render_reply(
    tokenizer: Any,
    template: _Template,
    earlier: list[dict[str, Any]],
    message: dict[str, Any],
    tools: list[dict[str, Any]],
    request: str,
) -> str:
    """Returns what the template adds for a message to `request`, the prompt that asked for it.

    Some templates, such as gpt-oss's, show the thoughts before a call in the prompt but drop them once the
    answer follows. Without these thoughts, prompt and conversation begin alike.
    """
    whole = _render(tokenizer, template, [*earlier, message], tools, False)
    if not whole.startswith(request):
        earlier = [{key: each[key] for key in each if key not in _THOUGHT_FIELDS} for each in earlier]
        request = _render(tokenizer, template, earlier, tools, True)
        whole = _render(tokenizer, template, [*earlier, message], tools, False)
    if not whole.startswith(request):
        raise RenderingError("its template rewrites earlier turns")
    return whole[len(request) :]


def _split_turn(
    tokenizer: Any, template: _Template, request: str, rendered: str, message: dict[str, Any]
) -> RenderedTurn:
    """Separates what the policy wrote from what the template added before and after it."""
    header = _generation_prompt(tokenizer, template)
    header = header if rendered.startswith(header) else ""
    added, reply = split_added_thoughts(
        rendered[len(header) :], message, request, _thought_marks(tokenizer, template)
    )
    added = header + added
    end = _written_end(reply, message)
    if not message.get("tool_calls"):
        reply = _trim_after_first_end_token(reply, end, tokenizer)
    return RenderedTurn(request, request + added, _trim_after_end_token(reply, tokenizer), end)


def _written_end(reply: str, message: dict[str, Any]) -> int:
    try:
        return written_end(reply, message)
    except MissingTextError as missing:
        raise RenderingError(f"its template leaves out {missing}") from None


@lru_cache(maxsize=8)
def _thought_marks(tokenizer: Any, template: _Template) -> tuple[str, str] | None:
    """Returns the text before and after the thoughts of an answer; None if the template shows none.

    The text before is empty if the prompt opens the thoughts.
    """
    user = {"role": "user", "content": "x"}
    answer = {
        "role": "assistant",
        "content": "probe-answer",
        **dict.fromkeys(_THOUGHT_FIELDS, "probe-thought"),
    }
    try:
        request = _render(tokenizer, template, [user], [], True)
        text = _render_reply(tokenizer, template, [user], answer, [], request)
    except RenderingError:
        return None
    opening, found, rest = text.partition("probe-thought")
    closing, answered, _ = rest.partition("probe-answer")
    return (opening, closing) if found and answered else None


@lru_cache(maxsize=8)
def _generation_prompt(tokenizer: Any, template: _Template) -> str:
    """Returns the text that `add_generation_prompt` adds, which some templates omit after a tool result."""
    user = [{"role": "user", "content": "x"}]
    try:
        without, prompt = (_render(tokenizer, template, user, [], flag) for flag in (False, True))
    except RenderingError:
        return ""
    return prompt[len(without) :] if prompt.startswith(without) else ""


def _render(
    tokenizer: Any,
    template: _Template,
    messages: list[dict[str, Any]],
    tools: list[dict[str, Any]],
    add_generation_prompt: bool,
) -> str:
    text: str = _apply(
        tokenizer, template, messages, tools, add_generation_prompt=add_generation_prompt, tokenize=False
    )
    return text


def _apply(
    tokenizer: Any,
    template: _Template,
    messages: list[dict[str, Any]],
    tools: list[dict[str, Any]],
    **options: Any,
) -> Any:
    """Calls `apply_chat_template`; raises RenderingError with the template's message if it fails."""
    try:
        return tokenizer.apply_chat_template(
            messages,
            tools=tools or None,
            chat_template=template.source,
            **json.loads(template.options),
            **options,
        )
    except Exception as error:  # a template is a program: it may raise any error
        detail = f"the chat template raised {type(error).__name__}: {error}"
        raise RenderingError("its template cannot render this conversation", detail) from None


def template_messages(tokenizer: Any, messages: list[dict[str, Any]], template: str) -> list[dict[str, Any]]:
    """Converts logged messages to the form that a chat template expects.

    Arguments of calls become objects, unless the template takes JSON text; thoughts appear under both names
    that templates read; null fields are removed.
    """
    keep_json = _takes_json_text(tokenizer, template)
    converted = []
    for message in messages:
        plain = {key: value for key, value in message.items() if value is not None}
        plain["content"] = message.get("content") or ""
        if thoughts := message.get("reasoning_content") or message.get("reasoning"):
            plain |= dict.fromkeys(_THOUGHT_FIELDS, thoughts)
        if calls := plain.pop("tool_calls", None):
            plain["tool_calls"] = calls if keep_json else [_parse_arguments(call) for call in calls]
        converted.append(plain)
    return converted


@lru_cache(maxsize=8)
def _takes_json_text(tokenizer: Any, template: str) -> bool:
    """Tests whether a template takes the arguments of a call as JSON text; most templates take an object.

    A template that takes both gets the text, which is exactly what the model wrote.
    """
    if "arguments is string" in template:
        return True
    call = {"name": "probe_tool", "arguments": {"probe": "x"}}
    reply = {"role": "assistant", "content": "", "tool_calls": [_call("call000001", call)]}
    try:
        text = _render(tokenizer, _Template(template), [{"role": "user", "content": "x"}, reply], [], False)
    except RenderingError:
        return True
    return "{'probe'" in text  # a Python dictionary: the template prints what it receives


def _call(id: str, function: dict[str, Any]) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": function}


def _parse_arguments(call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function") or {}
    try:
        arguments = json.loads(function.get("arguments") or "{}")
    except (TypeError, ValueError):
        return call
    return {**call, "function": {**function, "arguments": arguments}}


def _trim_after_first_end_token(reply: str, end: int, tokenizer: Any) -> str:
    """Removes what follows an end token and whitespace, such as the end token of the conversation."""
    ends = [at + len(token) for token in tokenizer.all_special_tokens if (at := reply.find(token, end)) >= 0]
    first = min(ends, default=len(reply))
    return reply[:first] if reply[first:].lstrip() != reply[first:] else reply


def _trim_after_end_token(reply: str, tokenizer: Any) -> str:
    """Removes the text after the end token, such as a line break: the template wrote it, not the model."""
    tokens = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
    end = max((reply.rfind(token) + len(token) for token in tokens if token in reply), default=0)
    return reply[:end] if end and not reply[end:].strip() else reply
