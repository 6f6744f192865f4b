"""Texts of the rule service's MCP prompts: when to consult its rulebook, and a hint about one request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from agent.episode import Hint, RuleHit

if TYPE_CHECKING:
    from mcp import Client

PROMPT = "safety_rules_guidance"
"""MCP prompt with the text."""
PACKAGED_SCOPE = "ascl/packaged-scope"
"""Key in its `_meta`: whether the rulebook is to be consulted exactly when the packaged one is."""
HINT_PROMPT = "safety_rules_hint"
"""MCP prompt with a line about the rules near a request, its argument `request`."""
HINT = "ascl/hint"
"""Key in its `_meta`: version, verdict, rules and rulebook."""
MAX_CHARS = 8000
MAX_HINT_CHARS = 1000
MAX_REQUEST_CHARS = 4000
"""Limit of the rule service: a hint about a longer request covers only its beginning."""


async def read_guidance(client: Client) -> str | None:
    """Returns the guidance text; None if the service has none, or if its rulebook does not need one.

    A rulebook with the scope of the packaged one does not need one: the agent's system text was written for
    that scope.
    """
    if PROMPT not in await _prompt_names(client):
        return None
    result = await client.get_prompt(PROMPT)
    if (result.meta or {}).get(PACKAGED_SCOPE) is True:
        return None
    return _text(result)[:MAX_CHARS].strip() or None


async def offers_hints(client: Client) -> bool:
    """Returns whether the service has the prompt for hints."""
    return HINT_PROMPT in await _prompt_names(client)


async def read_hint(client: Client, request: str) -> Hint:
    """Returns a line about the rules near a request, from a service that offers hints."""
    result = await client.get_prompt(HINT_PROMPT, {"request": request[:MAX_REQUEST_CHARS]})
    # One line: what the service sends must not look like further instructions of the system text.
    text = " ".join(_text(result).split())[:MAX_HINT_CHARS]
    details = (result.meta or {}).get(HINT)
    return Hint(text=text, **_hint_fields(details if isinstance(details, dict) else {}))


def _hint_fields(details: dict[str, Any]) -> dict[str, Any]:
    rulebook = details.get("rulebook")
    verdict, digest = details.get("verdict"), rulebook.get("digest") if isinstance(rulebook, dict) else None
    try:
        rules = [RuleHit.model_validate(_rule(rule)) for rule in details.get("rules") or []]
    except (ValidationError, TypeError, AttributeError):
        rules = []
    return {
        "version": str(details.get("version", "unknown"))[:64],
        "verdict": verdict if isinstance(verdict, str) else None,
        "rules": rules,
        "digest": digest if isinstance(digest, str) else None,
    }


def _rule(rule: dict[str, Any]) -> dict[str, Any]:
    return {name: rule[name] for name in ("id", "category", "stance", "score") if name in rule}


async def _prompt_names(client: Client) -> set[str]:
    from mcp import MCPError
    from mcp_types import METHOD_NOT_FOUND

    try:
        return {prompt.name for prompt in (await client.list_prompts()).prompts}
    except MCPError as error:
        if error.code == METHOD_NOT_FOUND:  # a server without prompts
            return set()
        raise


def _text(result: Any) -> str:
    return "\n".join(message.content.text for message in result.messages if message.content.type == "text")
