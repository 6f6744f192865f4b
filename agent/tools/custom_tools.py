"""Custom tools: the caller's own tools, which the agent offers beside the rule tool and executes."""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.endpoint import ToolCall, explain_malformed_call, truncate


@dataclass(frozen=True)
class CustomTool:
    """A tool. `run` receives the arguments and returns a text, or a value that is sent as JSON.

    If `run` raises an exception, the model receives an error message and the episode continues. A continued
    run does not execute a call again if the journal has its result.
    """

    name: str
    description: str
    run: Callable[[dict[str, Any]], Awaitable[Any] | Any]
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})
    """JSON Schema of the arguments."""

    @property
    def schema(self) -> dict[str, Any]:
        """The tool in the form of Chat Completions."""
        function = {
            "name": self.name,
            "description": self.description,
            "parameters": dict(self.parameters),
        }
        return {"type": "function", "function": function}

    async def answer(self, call: ToolCall) -> str:
        """Executes a call and returns the text for the model."""
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
"""Alias for `from agent import OwnTool`."""
