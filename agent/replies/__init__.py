"""Reads what a model wrote: its thoughts, its calls in any known form, and its answer."""

from agent.replies.calls import TAGGED_CALL, WrittenCall, find_calls
from agent.replies.reply import ReplyParts, read_reply
from agent.replies.thoughts import find_thoughts, opens_thoughts

__all__ = [
    "ReplyParts",
    "TAGGED_CALL",
    "WrittenCall",
    "find_calls",
    "find_thoughts",
    "opens_thoughts",
    "read_reply",
]
