"""HTTP between caller, gateway and upstream: requests, replies and server-sent events."""

from agent.gateway.wire.host_check import HostCheck
from agent.gateway.wire.passthrough import (
    METHODS,
    forward,
    is_from_web_page,
    path_below_v1,
    route_label,
)
from agent.gateway.wire.reply import ReplyHead, ReplyParts, StreamingReply, error_body, error_reply
from agent.gateway.wire.request import (
    CallerRequest,
    clean_name,
    only_named_tools,
    reason_tools_unusable,
    tool_names,
)
from agent.gateway.wire.sse import (
    DONE,
    KEEPALIVE,
    event_data,
    format_comment,
    format_event,
    parse_chunk,
    split_events,
)
from agent.gateway.wire.upstream import (
    RawHeaders,
    Upstream,
    UpstreamError,
    forwarded_headers,
    returned_headers,
)

__all__ = [
    "CallerRequest",
    "DONE",
    "HostCheck",
    "KEEPALIVE",
    "METHODS",
    "RawHeaders",
    "ReplyHead",
    "ReplyParts",
    "StreamingReply",
    "Upstream",
    "UpstreamError",
    "clean_name",
    "error_body",
    "error_reply",
    "event_data",
    "format_comment",
    "format_event",
    "forward",
    "forwarded_headers",
    "is_from_web_page",
    "only_named_tools",
    "parse_chunk",
    "path_below_v1",
    "reason_tools_unusable",
    "returned_headers",
    "route_label",
    "split_events",
    "tool_names",
]
