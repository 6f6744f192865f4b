"""Adds and converts token counts."""

from __future__ import annotations

from typing import Any


def add_usage(first: dict[str, Any] | None, second: dict[str, Any] | None) -> dict[str, Any] | None:
    """Adds two token counts, including nested details; returns None only if both are None."""
    if first is None or second is None:
        return second if first is None else first
    total = dict(first)
    for name, value in second.items():
        sum_so_far = total.get(name)
        if isinstance(sum_so_far, dict) and isinstance(value, dict):
            total[name] = add_usage(sum_so_far, value)
        elif _is_count(sum_so_far) and _is_count(value):
            total[name] = sum_so_far + value
        elif value is not None:
            total[name] = value
    return total


def as_chat_usage(usage: Any) -> dict[str, Any] | None:
    """Returns the token counts of the Responses API with the names of Chat Completions added."""
    if not isinstance(usage, dict):
        return None
    chat_names = {
        "prompt_tokens": usage.get("input_tokens"),
        "completion_tokens": usage.get("output_tokens"),
        "prompt_tokens_details": usage.get("input_tokens_details"),
        "completion_tokens_details": usage.get("output_tokens_details"),
    }
    return {**usage, **{name: value for name, value in chat_names.items() if value is not None}}


def _is_count(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
