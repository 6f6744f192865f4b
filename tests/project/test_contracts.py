"""Values that packages share without importing each other."""

from __future__ import annotations

from agent.tools.rejection import INVALID_ARGUMENTS
from agent.tools.rules_client import RULE_TOOL
from rule_server.api import mcp_server


def test_agent_and_rule_service_use_the_same_tool_name() -> None:
    assert mcp_server.RULE_TOOL == RULE_TOOL


def test_agent_and_rule_service_mark_invalid_arguments_by_the_same_key() -> None:
    assert mcp_server.INVALID_ARGUMENTS == INVALID_ARGUMENTS
