"""The mode of an episode: did the model decide to consult the rules, or to answer directly?

The decision counts, not its success: a call by name whose arguments do not parse, or that the service did not
answer, is still `consult`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

Mode = Literal["consult", "direct"]
RULE_TOOL = "consult_safety_rules"


def mode_of(messages: Iterable[Mapping[str, Any]], tool: str = RULE_TOOL) -> Mode:
    """The mode of a conversation in OpenAI form: `consult` if any assistant message calls `tool` by name.

    A call that the endpoint could not parse stays in the message's text as `<tool_call>`; it counts when it
    names the tool.
    """
    for message in messages:
        if message.get("role") != "assistant":
            continue
        for call in message.get("tool_calls") or []:
            function = call.get("function") or call
            if function.get("name") == tool:
                return "consult"
        content = message.get("content")
        if isinstance(content, str) and tool in content.partition("<tool_call>")[2]:
            return "consult"
    return "direct"
