"""Tools that a model may call: the rule tool and custom tools."""

from agent.tools.custom_tools import CustomTool, OwnTool
from agent.tools.rule_tool import REFUSAL_WITHOUT_RULES, RULES_UNREACHABLE, RuleTool, ToolOffer
from agent.tools.rules_client import RULE_TOOL, ConsultResult, RulesClient

__all__ = [
    "ConsultResult",
    "CustomTool",
    "OwnTool",
    "REFUSAL_WITHOUT_RULES",
    "RULES_UNREACHABLE",
    "RULE_TOOL",
    "RuleTool",
    "RulesClient",
    "ToolOffer",
]
