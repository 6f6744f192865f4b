"""Talks to a model: Chat Completions and Responses, one retry loop, provider quirks."""

from agent.endpoint.client import Endpoint, Reply, RetryPolicy
from agent.endpoint.probe import PROBE_STEPS, check_sampling, probe_endpoint
from agent.endpoint.quirks import (
    PROFILES,
    REASONING_FIELDS,
    Quirks,
    quirk_columns,
    quirks_named,
    reasoning_field,
    reasoning_text,
)
from agent.endpoint.responses import RESPONSE_ITEMS
from agent.endpoint.streaming import StreamedReply
from agent.endpoint.tool_calls import (
    ParsedReply,
    ToolCall,
    clean_tool_name,
    explain_malformed_call,
    has_malformed_arguments,
    parse_arguments,
    parse_reply,
    tool_messages,
    truncate,
)
from agent.endpoint.usage import add_usage, as_chat_usage

__all__ = [
    "Endpoint",
    "PROFILES",
    "ParsedReply",
    "Quirks",
    "REASONING_FIELDS",
    "RESPONSE_ITEMS",
    "Reply",
    "RetryPolicy",
    "PROBE_STEPS",
    "StreamedReply",
    "ToolCall",
    "add_usage",
    "as_chat_usage",
    "check_sampling",
    "clean_tool_name",
    "explain_malformed_call",
    "has_malformed_arguments",
    "parse_arguments",
    "parse_reply",
    "probe_endpoint",
    "quirk_columns",
    "quirks_named",
    "reasoning_field",
    "reasoning_text",
    "tool_messages",
    "truncate",
]
