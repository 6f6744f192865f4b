"""Chat templates: which one renders a conversation, and messages in the form that it expects.

A chat template is a program. `render` calls it with the options that the sampler used, on the day of the
episode, and turns any error that it raises into a `RenderingError`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import date, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

THOUGHT_FIELDS = ("reasoning_content", "thinking")
"""Names under which templates read the thoughts of a message."""
DAY_OPTION = "strftime_now"
"""Template option with the day (ISO 8601) that replaces today's date in the template's output."""
_THINKING_SWITCHES = ("enable_thinking", "thinking")
"""Template variables that turn thinking on."""
_RAW_ARGUMENTS = "ascl-raw-arguments"
_DAY = re.compile(r"""\bstrftime_now\(\s*(?:format\s*=\s*)?(?:"([^"]*)"|'([^']*)')\s*\)""")

Messages = list[dict[str, Any]]


class RenderingError(ValueError):
    """The template cannot render a conversation turn by turn.

    The message is the exclusion reason under which the episode is counted.
    """

    def __init__(self, cause: str, detail: str = "") -> None:
        super().__init__(cause)
        self.detail = detail
        """Description of the fault for the user, such as the template's own message; may be empty."""


class Template(NamedTuple):
    """A chat template with its variables."""

    source: str
    options: str = "{}"
    """Variables of the template besides messages and tools, as JSON."""


def sampled_options(sampling: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options of the chat template that were sent with an episode's requests.

    Args:
        sampling: `sampling_sent` of the episode. `chat_template_kwargs` may be in `extra_body`. Servers also
            pass `reasoning_effort` to the template.
    """
    extra_body = sampling.get("extra_body")
    sent = sampling.get("chat_template_kwargs") or (
        extra_body.get("chat_template_kwargs") if isinstance(extra_body, dict) else None
    )
    options = dict(sent) if isinstance(sent, dict) else {}
    if isinstance(effort := sampling.get("reasoning_effort"), str):
        options.setdefault("reasoning_effort", effort)
    return options


def on_day_of(options: Mapping[str, Any] | None, started_at: str | None) -> dict[str, Any]:
    """Adds the day of an episode to its template options, for templates that print today's date.

    Args:
        started_at: time in ISO 8601; None if unknown.
    """
    return {**({DAY_OPTION: started_at[:10]} if started_at else {}), **(options or {})}


def on_neighbouring_days(options: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any] | None]:
    """Yields template options on the day of the episode, then on the day before and the day after.

    The server's clock may be in another time zone than the log's, which is in UTC.
    """
    yield options
    with suppress(KeyError, TypeError, ValueError):
        day = date.fromisoformat((options or {})[DAY_OPTION])
        for shift in (-1, 1):
            yield {**(options or {}), DAY_OPTION: (day + timedelta(days=shift)).isoformat()}


class TokenTexts(NamedTuple):
    """Texts of a tokenizer's special and added tokens."""

    special: frozenset[str]
    all: frozenset[str]
    """Texts of all added tokens, including those that are not special, such as `<tool_call>`."""


def token_texts(tokenizer: Any) -> TokenTexts:
    """Returns the texts of the special and of all added tokens; a tokenizer may have thousands."""
    return _token_texts(tokenizer, len(tokenizer), tokenizer.eos_token)


@lru_cache(maxsize=8)
def _token_texts(tokenizer: Any, size: int, end_token: str | None) -> TokenTexts:
    added = tokenizer.added_tokens_decoder.values()
    special = {*tokenizer.all_special_tokens, *(token.content for token in added if token.special)}
    return TokenTexts(frozenset(special), frozenset(special | set(tokenizer.get_added_vocab())))


def candidate_templates(
    tokenizer: Any, tools: list[dict[str, Any]], options: Mapping[str, Any] | None, *, thoughts: bool
) -> Iterator[Template]:
    """Yields the forms of a tokenizer's template in the order of preference.

    The tokenizer's own template comes before TRL's training form of it, which keeps earlier thoughts.

    Args:
        options: `chat_template_kwargs` of the sampler, and `DAY_OPTION`.
        thoughts: whether the conversation contains thoughts. Then the sampler's thinking was on, even if the
            template turns it off by default.

    Raises:
        RenderingError: the tokenizer has no template.
    """
    given = dict(options or {})
    day = given.pop(DAY_OPTION, None)
    sources = [_own_template(tokenizer, tools)]
    if (training := _training_template(tokenizer, sources[0])) is not None:
        sources.append(training)
    switches = [name for name in _THINKING_SWITCHES if re.search(rf"\b{name} is (not )?defined", sources[0])]
    switches += ["enable_thinking"] if "enable_thinking" in sources[0] else []
    variants = [given]
    if thoughts and switches and not any(name in given for name in switches):
        variants.append({**given, **dict.fromkeys(switches, True)})
    for source in sources:
        for variant in variants:
            yield Template(_on_day(source, day), json.dumps(variant))


def render(
    tokenizer: Any,
    template: Template,
    messages: Messages,
    tools: list[dict[str, Any]],
    *,
    prompt: bool,
) -> str:
    """Renders messages in the form of `template_messages` as text.

    Args:
        prompt: whether to add the generation prompt, which asks for a reply.

    Raises:
        RenderingError: the template raised an error, or cannot show arguments that are not a JSON object.
    """
    try:
        text: str = tokenizer.apply_chat_template(
            messages,
            tools=tools or None,
            chat_template=template.source,
            add_generation_prompt=prompt,
            tokenize=False,
            **json.loads(template.options),
        )
    except Exception as error:  # a template is a program: it may raise any error
        detail = f"the chat template raised {type(error).__name__}: {error}"
        raise RenderingError("its template cannot render this conversation", detail) from None
    if _RAW_ARGUMENTS not in text:
        return text
    text = re.sub(
        rf'\{{\s*"{_RAW_ARGUMENTS}"\s*:\s*"([0-9a-f]*)"\s*\}}',
        lambda found: bytes.fromhex(found[1]).decode(errors="surrogatepass"),
        text,
    )
    if _RAW_ARGUMENTS in text:
        raise RenderingError("its template cannot show arguments that are not a JSON object")
    return text


def render_conversation(
    tokenizer: Any, template: Template, messages: Messages, tools: list[dict[str, Any]]
) -> str:
    """Renders messages without a generation prompt, and without what the template puts after the last one."""
    text = render(tokenizer, template, messages, tools, prompt=False)
    return text.removesuffix(_conversation_end(tokenizer, template))


@lru_cache(maxsize=16)
def _conversation_end(tokenizer: Any, template: Template) -> str:
    """Returns the text that ends every conversation: an end token, or a generation prompt.

    Phi-4's template ends conversations with the tokenizer's end token, Command R7B's always with the
    generation prompt. Neither belongs to the last reply.
    """
    user, answer = {"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}
    try:
        short = render(tokenizer, template, [user], [], prompt=False)
        long = render(tokenizer, template, [user, answer], [], prompt=False)
        request = render(tokenizer, template, [user], [], prompt=True)
    except RenderingError:
        return ""
    special = token_texts(tokenizer).all
    if request != short:
        same = _common_length(request, short)
        inside = [
            start
            for token in special
            for start in range(max(0, same - len(token) + 1), same)
            if short.startswith(token, start)
        ]
        return short[min([same, *inside]) :]
    end = short[len(short) - _common_length(short[::-1], long[::-1]) :]
    starts = [(end.find(token), -len(token)) for token in special if token in end]
    if not starts:
        return ""
    first, length = min(starts)
    if tokenizer.eos_token and (at := end.rfind(tokenizer.eos_token)) >= 0:
        return end[at + len(tokenizer.eos_token) :]
    return end[first - length :]  # both turns end with the first token; the rest is the generation prompt


@lru_cache(maxsize=8)
def generation_prompt(tokenizer: Any, template: Template) -> str:
    """Returns the text that the generation prompt adds, which some templates omit after a tool result."""
    user = [{"role": "user", "content": "x"}]
    try:
        without = render_conversation(tokenizer, template, user, [])
        asked = render(tokenizer, template, user, [], prompt=True)
    except RenderingError:
        return ""
    return asked[len(without) :] if asked.startswith(without) else ""


def template_messages(tokenizer: Any, messages: Messages, template: str) -> Messages:
    """Converts logged messages to the form that a chat template expects.

    Arguments of calls become objects, unless the template takes JSON text; thoughts appear under both names
    that templates read; null fields are removed. Arguments that are not a JSON object become a placeholder
    that `render` replaces with the text that the model wrote.
    """
    keep_json = _takes_json_text(tokenizer, template)
    converted = []
    for message in messages:
        plain = {key: value for key, value in message.items() if value is not None}
        plain["content"] = message.get("content") or ""
        if thoughts := thoughts_of(message):
            plain |= dict.fromkeys(THOUGHT_FIELDS, thoughts)
        if calls := plain.pop("tool_calls", None):
            plain["tool_calls"] = calls if keep_json else [_parse_arguments(call) for call in calls]
        converted.append(plain)
    return converted


def thoughts_of(message: Mapping[str, Any]) -> str | None:
    """Returns the thoughts of a logged message; None if it has none."""
    return message.get("reasoning_content") or message.get("reasoning")


def without_thoughts(messages: Messages) -> Messages:
    """Returns messages in the form of `template_messages` without their thoughts."""
    hidden = (*THOUGHT_FIELDS, "reasoning")
    return [{key: each[key] for key in each if key not in hidden} for each in messages]


def _own_template(tokenizer: Any, tools: list[dict[str, Any]]) -> str:
    """Returns the template that `apply_chat_template` uses: one of several if the tokenizer names them.

    Raises:
        RenderingError: the tokenizer has none.
    """
    try:
        template: str = tokenizer.get_chat_template(None, tools or None)
    except Exception as error:
        raise RenderingError("its tokenizer has no chat template", str(error)) from None
    return template


@lru_cache(maxsize=8)
def _training_template(tokenizer: Any, own_template: str) -> str | None:
    """Returns TRL's training form of the tokenizer's template; None if TRL has none or needs none."""
    from trl.chat_template_utils import get_training_chat_template

    try:
        template: str | None = get_training_chat_template(tokenizer)
    except Exception:  # TRL raises ValueError, and also what the template raises when TRL renders probes
        return None
    return template


def _on_day(source: str, day: str | None) -> str:
    """Replaces calls of `strftime_now`, which print today's date, with the date of the episode."""
    if day is None or DAY_OPTION not in source:
        return source
    with suppress(ValueError):
        at = date.fromisoformat(day)
        return _DAY.sub(lambda found: json.dumps(at.strftime(found[1] or found[2] or "")), source)
    return source


@lru_cache(maxsize=8)
def _takes_json_text(tokenizer: Any, template: str) -> bool:
    """Tests whether a template takes the arguments of a call as JSON text; most templates take an object.

    A template that writes both alike gets the text, which is exactly what the model wrote.
    """
    texts: list[str | None] = []
    for arguments in ('{"probe": "x"}', {"probe": "x"}):
        function = {"name": "probe_tool", "arguments": arguments}
        call = {"id": "call00001", "type": "function", "function": function}
        reply = {"role": "assistant", "content": "", "tool_calls": [call]}
        user = {"role": "user", "content": "x"}
        try:
            texts.append(render(tokenizer, Template(template), [user, reply], [], prompt=False))
        except RenderingError:
            texts.append(None)
    from_text, from_object = texts
    if from_object is None or "{'probe'" in from_object:  # a Python dictionary: printed as it is
        return True
    return from_text == from_object


def _parse_arguments(call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function") or {}
    text = function.get("arguments") or "{}"
    arguments = parse_json(text)
    if not isinstance(arguments, dict):
        if not isinstance(text, str):
            return call
        arguments = {_RAW_ARGUMENTS: text.encode(errors="surrogatepass").hex()}
    return {**call, "function": {**function, "arguments": arguments}}


def parse_json(text: Any) -> Any:
    """Returns the value of a JSON text; None if it is not JSON, and the value itself if it is not text."""
    if not isinstance(text, str | bytes):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _common_length(one: str, other: str) -> int:
    """Returns the length of the common beginning of two texts."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (left, right) in pairs if left != right), min(len(one), len(other)))
