"""Text of the rule service about when to consult its rulebook, read from its MCP prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mcp import Client

PROMPT = "safety_rules_guidance"
"""MCP prompt with the text."""
PACKAGED_SCOPE = "ascl/packaged-scope"
"""Key in its `_meta`: whether the rulebook is to be consulted exactly when the packaged one is."""
MAX_CHARS = 8000


async def read_guidance(client: Client) -> str | None:
    """Returns the text; None if the service has none, or if its rulebook needs none of its own.

    The latter is a rulebook that is to be consulted when the packaged one is: the agent's system text was
    written for that.
    """
    from mcp import MCPError
    from mcp_types import METHOD_NOT_FOUND

    try:
        prompts = (await client.list_prompts()).prompts
    except MCPError as error:
        if error.code == METHOD_NOT_FOUND:  # a server without prompts
            return None
        raise
    if not any(prompt.name == PROMPT for prompt in prompts):
        return None
    result = await client.get_prompt(PROMPT)
    if (result.meta or {}).get(PACKAGED_SCOPE) is True:
        return None
    texts = [message.content.text for message in result.messages if message.content.type == "text"]
    return "\n".join(texts)[:MAX_CHARS].strip() or None
