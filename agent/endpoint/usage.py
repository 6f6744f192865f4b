"""Token counts of several model calls as one."""

from __future__ import annotations

from typing import Any


def add_usage(first: dict[str, Any] | None, second: dict[str, Any] | None) -> dict[str, Any] | None:
    """Both counts together, nested details included; None only when neither is known."""
    if first is None or second is None:
        return second if first is None else first
    total = dict(first)
    for name, value in second.items():
        have = total.get(name)
        if isinstance(have, dict) and isinstance(value, dict):
            total[name] = add_usage(have, value)
        elif _is_count(have) and _is_count(value):
            total[name] = have + value
        elif value is not None:
            total[name] = value
    return total


def as_chat_usage(usage: Any) -> dict[str, Any] | None:
    """The Responses API's counts with the names that Chat Completions has for them beside its own."""
    if not isinstance(usage, dict):
        return None
    named = {
        "prompt_tokens": usage.get("input_tokens"),
        "completion_tokens": usage.get("output_tokens"),
        "prompt_tokens_details": usage.get("input_tokens_details"),
        "completion_tokens_details": usage.get("output_tokens_details"),
    }
    return {**usage, **{name: value for name, value in named.items() if value is not None}}


def _is_count(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
