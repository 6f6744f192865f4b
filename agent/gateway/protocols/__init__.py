"""Chat Completions and Responses through the gateway, whole and streamed."""

from agent.gateway.protocols.chat import chat_without_rules, complete_chat
from agent.gateway.protocols.chat_stream import StreamedChat
from agent.gateway.protocols.responses import complete_response, response_without_rules
from agent.gateway.protocols.responses_stream import stream_response

__all__ = [
    "StreamedChat",
    "chat_without_rules",
    "complete_chat",
    "complete_response",
    "response_without_rules",
    "stream_response",
]
