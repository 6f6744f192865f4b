"""TODO: docstring."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from agent.endpoint import ToolCall, add_usage, as_chat_usage, parse_arguments
from agent.episode import Message
from agent.gateway.exchange.chat import Exchange
from agent.gateway.exchange.mixed_calls import Item, MixedItemStore
from agent.gateway.wire import reason_tools_unusable
from agent.tools import RULES_UNREACHABLE


def responses_reason_not_offered(body: Mapping[str, Any]) -> str | None:
    """Why a Responses request is passed on without the rule tool; None when it can be offered."""
    if not isinstance(body.get("input"), str | list):
        return "no input"
    if body.get("tool_choice") == "none":
        return "tool_choice is none"
    if body.get("background"):
        return "background is asked for"
    return reason_tools_unusable(body)


class ResponsesExchange(Exchange):
    """An exchange whose conversation is a list of items."""

    api = "responses"
    halves: MixedItemStore
    items: list[Any]

    @property
    def conversation(self) -> list[Any]:
        """What the next request to the model holds."""
        return self.items

    @conversation.setter
    def conversation(self, given: list[Any]) -> None:
        self.items = given

    def begin(self, halves: MixedItemStore) -> None:
        """Take in the caller's items."""
        self.halves = halves
        given = self.asked.body.get("input")
        self.items = [{"role": "user", "content": given}] if isinstance(given, str) else list(given or [])
        named = self.asked.body.get("previous_response_id")
        previous = halves.real(self.asked.caller, named)
        self._renamed = previous != named
        if self._renamed:
            self.asked.body["previous_response_id"] = previous
        if self.offer is not None:
            self.items, restored = halves.restore(self.asked.caller, previous, self.items)
            self.counters.restored += restored
        self.last: list[Item] = []
        """The output of the reply that was shown, our calls and their answers included."""
        self.hidden: list[Item] = []
        """Our calls and their answers in the last hidden turn."""

    def next_body(self) -> bytes:
        """The body of the next request to the upstream; begins a turn."""
        self.begin_turn()
        if self.offer is None:
            return json.dumps(self.asked.body).encode() if self._renamed else self.asked.raw
        body = {**self.asked.body, "input": self.items}
        if self.offering:
            tool = {"type": "function", **self.offer.tool["function"]}
            body["tools"] = [*(body.get("tools") or []), tool]
            choice = body.get("tool_choice")
            if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
                name = {"type": "function", "name": self.offer.name}
                body["tool_choice"] = {**choice, "tools": [*(choice.get("tools") or []), name]}
        return json.dumps(body).encode()

    def is_ours(self, item: Any) -> bool:
        """Whether an item is a call of the rule tool."""
        return (
            self.offer is not None
            and isinstance(item, dict)
            and item.get("type") == "function_call"
            and item.get("name") == self.offer.name
        )

    async def take_reply(self, response: dict[str, Any]) -> list[Item] | None:
        """What of a reply's output the caller is shown; None when it consulted and called nothing else.

        Raises:
            RulesError: when the rules cannot be consulted and the model is not to answer without them.
        """
        output = response.get("output") or []
        if self.offering and any(self.is_ours(item) for item in output):
            return await self.carried_out(self._take_reply(response))
        return await self._take_reply(response)

    async def _take_reply(self, response: dict[str, Any]) -> list[Item] | None:
        index = len(self.turns)
        usage = response.get("usage")
        self.note_turn(response.get("status"), as_chat_usage(usage), response.get("model"))
        output = [item for item in response.get("output") or [] if isinstance(item, dict)]
        self.last = output
        ours = [item for item in output if self.is_ours(item)]
        shown = [item for item in output if not self.is_ours(item)]
        if not ours or not self.offering:
            return shown
        answers: list[Item] = []
        self.counters.consulted += not self.consulted
        for item in ours:
            self.counters.consultations += 1
            arguments = item.get("arguments") if isinstance(item.get("arguments"), str) else ""
            parsed, problem = parse_arguments(arguments or "")
            call = ToolCall(str(item.get("call_id")), str(item.get("name")), arguments or "", parsed, problem)
            answer = {
                "type": "function_call_output",
                "call_id": item.get("call_id"),
                "output": RULES_UNREACHABLE,
            }
            answers.append(answer)
            self.last = [*output, *answers]
            answer["output"] = await self.desk.answer(call, index)
            self.note_rules_error()
        theirs = [item for item in shown if item.get("type") == "function_call"]
        if theirs:
            self.counters.mixed += 1
            self.halves.keep(self.asked.caller, response.get("id"), theirs, [*ours, *answers])
            if self.settings.hold:  # written before a consultation, so without what it found
                return [item for item in shown if item.get("type") != "message"]
            return shown
        self.spent = add_usage(self.spent, usage if isinstance(usage, dict) else None)
        self.items += [*output, *answers]
        self.last = []
        self.hidden = [*ours, *answers]
        self.stop_offering_if_enough()
        self.keep_progress()
        return None

    def logged(self) -> list[Message]:
        """The conversation in the form of an episode's messages."""
        given = self.asked.body.get("instructions")
        first = [{"role": "system", "content": given}] if isinstance(given, str) else []
        return [*first, *_joined(_message(m) for m in [*self.items, *self.last] if isinstance(m, dict))]


def _message(item: Item) -> Message:
    """An item as a message, for the log."""
    kind = item.get("type", "message")
    if kind == "function_call":
        function = {"name": item.get("name"), "arguments": str(item.get("arguments"))}
        entry = {"id": str(item.get("call_id")), "type": "function", "function": function}
        return {"role": "assistant", "content": None, "tool_calls": [entry]}
    if kind == "function_call_output":
        return {"role": "tool", "tool_call_id": item.get("call_id"), "content": str(item.get("output"))}
    if kind == "reasoning":
        summary = _texts(item.get("summary"))
        return {"role": "assistant", "content": None, "reasoning": "\n".join(summary)}
    content = item.get("content")
    if isinstance(content, list):
        content = "".join(_texts(content))
    return {"role": item.get("role", "assistant"), "content": content}


def _joined(messages: Iterable[Message]) -> Iterator[Message]:
    """One message for the items of a reply: its thoughts, its text and its calls."""
    reply: Message | None = None
    for message in messages:
        if message.get("role") != "assistant" or reply is None:
            if reply is not None:
                yield reply
            reply = message if message.get("role") == "assistant" else None
            if reply is None:
                yield message
            continue
        for name in ("content", "reasoning"):
            texts = [each[name] for each in (reply, message) if isinstance(each.get(name), str)]
            reply = {**reply, name: "\n\n".join(texts)} if texts else reply
        if calls := [*(reply.get("tool_calls") or []), *(message.get("tool_calls") or [])]:
            reply = {**reply, "tool_calls": calls}
    if reply is not None:
        yield reply


def _texts(parts: Any) -> list[str]:
    found = [part.get("text") for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    return [text for text in found if isinstance(text, str)]
