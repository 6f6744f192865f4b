"""One caller request: its hidden consultations and the reply the caller sees."""

from agent.gateway.exchange.chat import Exchange, extra_headers
from agent.gateway.exchange.mixed_calls import Item, MixedCallStore, MixedItemStore
from agent.gateway.exchange.responses import ResponsesExchange, responses_reason_not_offered

__all__ = [
    "Exchange",
    "Item",
    "MixedCallStore",
    "MixedItemStore",
    "ResponsesExchange",
    "extra_headers",
    "responses_reason_not_offered",
]
