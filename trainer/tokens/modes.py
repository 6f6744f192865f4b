"""Mode of an episode: whether the model decided to consult the rules or to answer directly.

The decision counts, not its success: a call by name whose arguments do not parse, or that the service did not
answer, is still `consult`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from agent.tools import RULE_TOOL

Mode = Literal["consult", "direct"]


def mode_of(messages: Iterable[Mapping[str, Any]], tool: str = RULE_TOOL) -> Mode:
    """Returns `consult` if any assistant message calls `tool` by name, else `direct`.

    Args:
        messages: a conversation in OpenAI form.
    """
    return "consult" if consultations_of(messages, tool) else "direct"


def consultations_of(messages: Iterable[Mapping[str, Any]], tool: str = RULE_TOOL) -> int:
    """Counts the calls of `tool` by name in assistant messages.

    A call that the endpoint could not parse stays in the message's text as `<tool_call>`. It counts once per
    message if it names the tool. A call that the text only thinks about does not count.
    """
    count = 0
    for message in messages:
        if message.get("role") != "assistant":
            continue
        calls = [call.get("function") or call for call in message.get("tool_calls") or []]
        in_message = sum(function.get("name") == tool for function in calls)
        content = message.get("content")
        if not in_message and isinstance(content, str):
            in_message = int(tool in content.rpartition("</think>")[2].partition("<tool_call>")[2])
        count += in_message
    return count
