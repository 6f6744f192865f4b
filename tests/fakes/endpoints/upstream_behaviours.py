"""Oddities of real OpenAI-compatible servers, one named behaviour each. Add one as an entry of `BEHAVIOURS`.

A behaviour is a set of facets of `Behaviour`: how a server names calls, numbers them, splits its stream, ends
it, and which requests it refuses. Facets are independent, so that property tests can compose them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Ids = Literal["unique", "numbered", "zero", "absent", "empty", "null", "same"]
"""`numbered` and `zero` repeat in every conversation; `same` gives every call of one reply the same id."""
Positions = Literal["right", "zero", "absent", "gaps"]
"""`index` of streamed calls: correct, always 0, missing, or increasing with gaps."""
Finish = Literal["tool_calls", "stop", "null", "absent"]
"""`finish_reason` of a reply with calls."""
Content = Literal["null", "empty", "absent", "text"]
"""`content` beside calls. `text` keeps the text of the turn."""
Output = Literal["full", "empty", "absent"]
"""`output` of the final event of a streamed response."""


@dataclass(frozen=True)
class Behaviour:
    """How an upstream replies, and which requests it refuses. The defaults are those of OpenAI's own API."""

    # Both APIs
    ids: Ids = "unique"
    split: int = 0
    """Bytes per piece on the network; 0 sends one event a piece, -1 the whole body at once."""
    crlf: bool = False
    comments: bool = False
    """Whether comments come before and between the events."""
    rename: str = "{}"
    """Form of the rule tool's name in calls, such as `{}<|channel|>commentary`."""
    arguments_size: int = 5
    """Characters of a call's arguments per event; 0 sends them whole."""
    ignores_stream: bool = False
    """Whether a whole reply answers a request for a stream."""
    odd_headers: bool = False
    """Whether the head has UTF-8 bytes in a header and two `Set-Cookie` lines."""

    # Chat Completions
    positions: Positions = "right"
    repeats_id: bool = False
    """Whether each fragment of a call repeats its id and name."""
    interleaved: bool = False
    """Whether the fragments of parallel calls alternate; needs right positions."""
    finish: Finish = "tool_calls"
    finish_with_last_delta: bool = False
    content: Content = "null"
    role: Literal["first", "every", "never"] = "first"
    azure_head: bool = False
    """Whether the first chunk has no choices, an empty id and content filter results."""
    usage: Literal["last", "every", "finish", "never"] = "last"
    done: bool = True
    """Whether `[DONE]` ends a stream."""
    thoughts: Literal["", "reasoning_content", "reasoning"] = ""

    # Responses
    output: Output = "full"
    item_ids: bool = True
    deltas: bool = True
    """Whether texts and arguments come as deltas before `output_item.done`."""
    reasoning: Literal["", "encrypted", "plain"] = ""
    """Whether a reasoning item comes first, with or without `encrypted_content`."""

    # Requests that are refused with 400 or 404
    wants_tools_with_calls: bool = False
    """Refuses a history with calls when the request has no tools (Bedrock through LiteLLM)."""
    forbids_format_with_tools: bool = False
    """Refuses `response_format` beside tools (Gemini)."""
    forgets_reasoning: bool = False
    """Refuses reasoning items without `encrypted_content` when `store` is false (OpenAI)."""


PLAIN = Behaviour()


@dataclass(frozen=True)
class Named:
    """A behaviour with the server it was seen on."""

    behaviour: Behaviour
    seen_on: str
    """Server, and where it was reported."""
    apis: tuple[str, ...] = ("chat", "responses")


def chat_only(seen_on: str, **facets: object) -> Named:
    return Named(replace(PLAIN, **facets), seen_on, ("chat",))  # type: ignore[arg-type]


def responses_only(seen_on: str, **facets: object) -> Named:
    return Named(replace(PLAIN, **facets), seen_on, ("responses",))  # type: ignore[arg-type]


def both(seen_on: str, **facets: object) -> Named:
    return Named(replace(PLAIN, **facets), seen_on)  # type: ignore[arg-type]


BEHAVIOURS: dict[str, Named] = {
    "plain": both("OpenAI"),
    "ids_numbered_alike_in_every_conversation": both("Kimi, vLLM (vllm#50295)", ids="numbered"),
    "the_same_id_in_every_turn": both("SGLang (sglang#9606)", ids="zero"),
    "one_id_for_all_calls_of_a_reply": chat_only("llama.cpp builds, proxies", ids="same"),
    "calls_without_ids": chat_only("older Ollama, Gemini", ids="absent"),
    "calls_with_empty_ids": chat_only("Gemini's OpenAI endpoint", ids="empty"),
    "calls_with_null_ids": chat_only("TabbyAPI, older SGLang", ids="null"),
    "every_call_at_position_0": chat_only("Gemini, DeepSeek proxies (new-api#2701)", positions="zero"),
    "calls_without_positions": chat_only("Gemini, Ollama before 0.5", positions="absent", arguments_size=0),
    "positions_with_gaps": chat_only("Anthropic through LiteLLM", positions="gaps"),
    "id_and_name_in_every_fragment": chat_only("Groq, Mistral proxies", repeats_id=True),
    "interleaved_parallel_calls": chat_only("vLLM with speculative decoding", interleaved=True),
    "calls_in_one_piece": both("Ollama, Groq", arguments_size=0),
    "arguments_a_character_at_a_time": both("llama.cpp", arguments_size=1),
    "finish_reason_stop_with_calls": chat_only("Ollama (ollama#7881)", finish="stop"),
    "no_finish_reason": chat_only("proxies that cut the last chunk", finish="absent"),
    "finish_reason_null_with_calls": chat_only("older TGI", finish="null"),
    "finish_reason_in_the_last_delta": chat_only("Groq, Mistral", finish_with_last_delta=True),
    "empty_content_beside_calls": chat_only("vLLM, SGLang", content="empty"),
    "no_content_field_beside_calls": chat_only("Gemini", content="absent"),
    "text_beside_calls": both("DeepSeek, Claude through LiteLLM", content="text"),
    "role_in_every_chunk": chat_only("Gemini, Azure", role="every"),
    "no_role": chat_only("llama.cpp, LocalAI", role="never"),
    "content_filter_chunk_first": chat_only("Azure OpenAI", azure_head=True),
    "usage_in_every_chunk": chat_only("Fireworks, xAI", usage="every"),
    "usage_with_the_finish_reason": chat_only("Mistral, Groq", usage="finish"),
    "no_usage": chat_only("llama.cpp without stream_options", usage="never"),
    "no_done_event": chat_only("Azure proxies, Gemini", done=False),
    "crlf": both("IIS and Java proxies", crlf=True),
    "comments_between_events": both("OpenRouter (: OPENROUTER PROCESSING)", comments=True),
    "one_byte_at_a_time": both("slow networks", split=1),
    "everything_in_one_piece": both("buffering proxies", split=-1),
    "whole_reply_where_a_stream_was_asked_for": chat_only("proxies with caches", ignores_stream=True),
    "reasoning_content": chat_only("DeepSeek, vLLM, SGLang", thoughts="reasoning_content"),
    "reasoning_field": chat_only("OpenRouter, Groq, Ollama", thoughts="reasoning", content="text"),
    "channel_in_the_tool_name": both("gpt-oss on vLLM (vllm#32587)", rename="{}<|channel|>commentary"),
    "namespace_in_the_tool_name": both("gpt-oss, Kimi", rename="functions.{}"),
    "headers_in_utf8_and_two_cookies": both("nginx and corporate proxies", odd_headers=True),
    "tools_wanted_while_history_has_calls": chat_only(
        "Bedrock through LiteLLM (dify#17545)", wants_tools_with_calls=True
    ),
    "no_json_mode_beside_tools": chat_only("Gemini (python-genai#867)", forbids_format_with_tools=True),
    "empty_output_in_the_final_event": responses_only("new-api#4362, litellm#31332", output="empty"),
    "no_output_in_the_final_event": responses_only("open-webui#27800", output="absent"),
    "items_without_ids": responses_only("vLLM, Ollama", item_ids=False),
    "items_without_deltas": responses_only("proxies", deltas=False),
    "reasoning_items": responses_only("OpenAI o-series with encrypted content", reasoning="encrypted"),
    "reasoning_items_that_are_not_stored": responses_only(
        "OpenAI with store: false (vercel/ai#7543)", reasoning="plain", forgets_reasoning=True
    ),
}
