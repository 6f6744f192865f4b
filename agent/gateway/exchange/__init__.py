"""One caller request: its conversation, its hidden consultations and the reply that the caller sees."""

from agent.gateway.exchange.chat import ChatConversation
from agent.gateway.exchange.consultation_executor import ConsultationExecutor
from agent.gateway.exchange.conversation import Conversation
from agent.gateway.exchange.exchange import Exchange
from agent.gateway.exchange.mixed_calls import Item, MixedCallStore, MixedItemStore
from agent.gateway.exchange.responses import ResponsesConversation

__all__ = [
    "ChatConversation",
    "ConsultationExecutor",
    "Conversation",
    "Exchange",
    "Item",
    "MixedCallStore",
    "MixedItemStore",
    "ResponsesConversation",
]
