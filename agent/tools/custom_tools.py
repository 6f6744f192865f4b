"""Tools of the caller's, offered to the model beside the rule tool and carried out by the agent."""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.endpoint import ToolCall, explain_malformed_call, truncate


@dataclass(frozen=True)
class CustomTool:
    """One tool; `run` is given the arguments and returns text, or a value that is sent as JSON.

    What `run` raises is told to the model as an error, and the episode goes on. In a run that is continued, a
    call whose result was journalled is not carried out again.
    """

    name: str
    description: str
    run: Callable[[dict[str, Any]], Awaitable[Any] | Any]
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})
    """JSON Schema of the arguments."""

    @property
    def schema(self) -> dict[str, Any]:
        """The tool in the form that Chat Completions takes."""
        function = {
            "name": self.name,
            "description": self.description,
            "parameters": dict(self.parameters),
        }
        return {"type": "function", "function": function}

    async def answer(self, call: ToolCall) -> str:
        """The text that answers a call."""
        if call.parsed is None:
            return explain_malformed_call(call)
        try:
            value = self.run(call.parsed)
            if inspect.isawaitable(value):
                value = await value
            return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        except Exception as error:
            return f"Error: the tool {self.name} failed ({type(error).__name__}: {truncate(str(error))})."


OwnTool = CustomTool
"""The name that `from agent import OwnTool` keeps."""
