"""Chat Completions and Responses replies, whole and streamed."""

from agent.gateway.protocols.chat import ChatDialect
from agent.gateway.protocols.chat_stream import StreamedChat
from agent.gateway.protocols.dialect import Dialect, Recorder, reply_without_rules
from agent.gateway.protocols.responses import ResponsesDialect
from agent.gateway.protocols.responses_stream import StreamedResponse
from agent.gateway.protocols.stream import StreamedExchange
from agent.gateway.protocols.unstreamed import complete

__all__ = [
    "ChatDialect",
    "Dialect",
    "Recorder",
    "ResponsesDialect",
    "StreamedChat",
    "StreamedExchange",
    "StreamedResponse",
    "complete",
    "reply_without_rules",
]
