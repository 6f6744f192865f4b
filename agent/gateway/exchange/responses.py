"""The conversation of a Responses request."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

from agent.endpoint import ToolCall, parse_arguments
from agent.episode import Api, Message
from agent.gateway.exchange.conversation import Conversation, RequestBody, SplitReply, Stage, is_system
from agent.gateway.exchange.mixed_calls import (
    Insertion,
    Item,
    MixedItemStore,
    awaits_answer,
    input_items,
    unused_id,
)
from agent.gateway.wire import CallerRequest, reason_tools_unusable
from agent.tools import ToolOffer


class ResponsesConversation(Conversation):
    """A list of items: messages, reasoning, calls and their results."""

    api: ClassVar[Api] = "responses"
    text_part: ClassVar[str] = "input_text"

    def __init__(
        self, request: CallerRequest, offer: ToolOffer | None, store: MixedItemStore, *, hold: bool
    ) -> None:
        super().__init__(request, offer, hold=hold)
        self._store = store
        self._hidden: list[Item] = []
        """The rule tool's calls and results in the last hidden turn."""
        self._insertions: list[Insertion] = []
        """Hidden items, and the items of this reply that they belong to."""
        self._shown: list[Item] = []
        """Items of hidden turns that the caller saw."""
        self._body = request.body
        named = request.body.get("previous_response_id")
        previous = store.upstream_id(request.caller, named)
        if previous != named:
            self._body = {**self._body, "previous_response_id": previous}
        self.entries = input_items(request.body)
        if offer is not None:
            self.entries, self.restored = store.restore(request.caller, request.body, previous)
        self.given = len(self.entries)

    @staticmethod
    def reason_not_offered(body: Mapping[str, Any]) -> str | None:
        if not isinstance(body.get("input"), str | list):
            return "no input"
        if body.get("tool_choice") == "none":
            return "tool_choice is none"
        if body.get("background"):
            return "background is requested"
        if body.get("conversation"):
            # The upstream would store hidden turns in it, and an unfinished one would block it permanently.
            return "the upstream stores the conversation"
        return reason_tools_unusable(body)

    def bodies(self, stage: Stage) -> list[RequestBody]:
        unchanged = self._body is self.request.body
        own = self.request.raw if unchanged else json.dumps(self._body).encode()
        if self.offer is None:
            return [RequestBody(own)]
        histories = [self.entries]
        without = self._without_unstored_reasoning()
        if without != self.entries:
            histories = [without] if self._body.get("store") is False else [self.entries, without]
        requests = [
            RequestBody(json.dumps(body).encode())
            for history in histories
            for body in self._forms(self._hinted_body(history), self.offer, stage)
        ]
        if stage == "offered" and not self.has_hidden_turns:
            requests.append(RequestBody(own, has_offer=False))
        return requests

    @property
    def hint_in_instructions(self) -> bool:
        """Whether the hint ends the instructions, rather than the first items.

        An upstream that stores the conversation keeps items, but no instructions. The instructions would
        replace those of a stored prompt, and precede the system messages of the input.
        """
        instructions = self.request.body.get("instructions")
        starts_with_system = is_system(next(iter(self.entries), None))
        in_items = instructions is None and (starts_with_system or self.request.body.get("prompt"))
        return self.hint is not None and not in_items

    def _instructions(self) -> Any:
        instructions = self.request.body.get("instructions")
        if self.hint is None or not self.hint_in_instructions:
            return instructions
        return self.end_with_hint(instructions, self.hint.text)

    def _hinted_body(self, history: list[Any]) -> dict[str, Any]:
        if self.hint_in_instructions:
            return {**self._body, "instructions": self._instructions(), "input": history}
        return {**self._body, "input": self.with_hint(history)}

    def _forms(self, plain: dict[str, Any], offer: ToolOffer, stage: Stage) -> list[dict[str, Any]]:
        if stage == "offered":
            return [_with_tool(plain, offer)]
        if stage == "forbidden" and not plain.get("tools"):
            # Some servers refuse calls in the history of a request without tools.
            return [{**_with_tool(plain, offer), "tool_choice": "none"}, plain]
        return [plain]

    def _without_unstored_reasoning(self) -> list[Any]:
        """Returns the items without reasoning of hidden turns that only a server that stored it knows.

        The items that followed it lose their ids, since these refer to the reasoning.
        """
        given, hidden = self.entries[: self.given], self.entries[self.given :]
        unstored = [i for i in hidden if i.get("type") == "reasoning" and not i.get("encrypted_content")]
        if not unstored:
            return self.entries
        rest = [
            item if item.get("type") == "reasoning" else {k: v for k, v in item.items() if k != "id"}
            for item in hidden
            if item not in unstored
        ]
        return [*given, *rest]

    def withdraw_offer(self) -> None:
        self.offer = self.hint = None
        self.entries = input_items(self.request.body)
        self.given = len(self.entries)

    def is_hidden(self, item: Any) -> bool:
        """Returns whether an item is a call that the gateway answers."""
        return isinstance(item, dict) and item.get("type") == "function_call" and self.hides(item.get("name"))

    def parse(self, reply: dict[str, Any], turn: int) -> SplitReply:
        output = [item for item in reply.get("output") or [] if isinstance(item, dict)]
        visible = [item for item in output if not self.is_hidden(item)]
        replay = self._with_unused_ids(output)
        mixed = any(awaits_answer(item, output) for item in visible)
        if len(visible) < len(output) and mixed and self.hold:
            # Text from before the consultation did not use its result.
            visible = [item for item in visible if item.get("type") != "message"]
        return SplitReply(
            hidden_calls=[
                _tool_call(item) for item, sent in zip(replay, output, strict=True) if self.is_hidden(sent)
            ],
            replay=replay,
            visible=visible,
            mixed=mixed,
            reply=reply,
            finish_reason=reply.get("status"),
            usage=reply.get("usage"),
            model=reply.get("model"),
        )

    def _with_unused_ids(self, output: list[Item]) -> list[Item]:
        """Returns a reply's items with ids for the hidden calls that no other call has."""
        others = [item for item in output if not self.is_hidden(item)]
        earlier = [item for item in self.entries if isinstance(item, dict)]
        taken = {item.get("call_id") for item in [*earlier, *others]}
        item_ids = {item["id"] for item in earlier if "id" in item}
        result = []
        for item in output:
            if self.is_hidden(item):
                call_id = unused_id(str(item.get("call_id") or "call"), taken)
                item = {**item, "call_id": call_id, "name": self.name_to_replay(item["name"])}
                if item.get("id") in item_ids:
                    del item["id"]
            result.append(item)
        return result

    def add_hidden_turn(self, parsed: SplitReply, results: Mapping[str, str]) -> None:
        answers = _outputs(results)
        self.has_hidden_turns = True
        self.entries += [*parsed.replay, *answers]
        self._hidden = [*_calls_of(parsed), *answers]

    def add_mixed_reply(self, parsed: SplitReply, results: Mapping[str, str]) -> None:
        answers = _outputs(results)
        calls = [item for item in parsed.visible if awaits_answer(item, parsed.visible)]
        self.reply = [*parsed.replay, *answers]
        self._insertions.append(Insertion(calls[0], before=True, items=[*_calls_of(parsed), *answers]))
        self._store_insertions(parsed.visible)
        # The upstream stored the reply under its own call ids.
        upstream_ids = [item.get("call_id") for item in parsed.reply["output"] if self.is_hidden(item)]
        upstream_answers = [
            {**answer, "call_id": id} for answer, id in zip(answers, upstream_ids, strict=True)
        ]
        self._store.add_results(
            self.request.caller, self.request.body, parsed.reply.get("id"), calls, upstream_answers
        )

    def add_visible_reply(self, parsed: SplitReply) -> None:
        self.reply = list(parsed.visible)
        if self.offer is not None:
            self._store_insertions(parsed.visible)
            calls = [item for item in parsed.visible if awaits_answer(item, parsed.visible)]
            self._store.add_results(self.request.caller, self.request.body, parsed.reply.get("id"), calls, [])

    def _store_insertions(self, visible: list[Item]) -> None:
        items = [*self._shown, *visible]
        self._store.add(self.request.caller, self.request.body, items, self._insertions)

    def note_visible_items(self, items: list[Item]) -> None:
        """Records that the caller saw these items of the last hidden turn.

        If the caller sends them back, the hidden calls follow them again: the upstream refuses reasoning
        without the call that followed it.
        """
        if items:
            self._shown += items
            self._insertions.append(Insertion(items[-1], before=False, items=self._hidden))

    def note_response_id(self, visible_id: Any, upstream_id: Any) -> None:
        """Stores that the caller saw a response under another id than the upstream's."""
        self._store.rename_response(self.request.caller, visible_id, upstream_id)

    def given_messages(self, *, with_hint: bool = False) -> list[Message]:
        instructions, given = self.request.body.get("instructions"), self.entries[: self.given]
        if with_hint and self.hint_in_instructions:
            instructions = self._instructions()
        elif with_hint:
            given = self.with_hint(given)
        system = [{"role": "system", "content": instructions}] if isinstance(instructions, str) else []
        return [*system, *_messages(given)]

    def written_messages(self) -> list[Message]:
        return _messages([*self.entries[self.given :], *self.reply])


def _with_tool(body: dict[str, Any], offer: ToolOffer) -> dict[str, Any]:
    tool = {"type": "function", **offer.tool["function"]}
    changed = {**body, "tools": [*(body.get("tools") or []), tool]}
    choice = body.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        entry = {"type": "function", "name": offer.name}
        changed["tool_choice"] = {**choice, "tools": [*(choice.get("tools") or []), entry]}
    return changed


def _tool_call(item: Item) -> ToolCall:
    given = item.get("arguments")
    arguments = given if isinstance(given, str) else ""
    parsed, problem = parse_arguments(arguments)
    return ToolCall(str(item.get("call_id")), str(item.get("name")), arguments, parsed, problem)


def _calls_of(parsed: SplitReply) -> list[Item]:
    """Returns the items of the hidden calls, as they are sent back."""
    ids = {call.id for call in parsed.hidden_calls}
    return [item for item in parsed.replay if item.get("call_id") in ids]


def _outputs(results: Mapping[str, str]) -> list[Item]:
    return [{"type": "function_call_output", "call_id": id, "output": text} for id, text in results.items()]


def _messages(items: list[Any]) -> list[Message]:
    return list(_joined(_message(item) for item in items if isinstance(item, dict)))


def _message(item: Item) -> Message:
    """Converts an item to a message, for the log."""
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
    """Joins the items of a reply into one message: its reasoning, its text and its calls."""
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
    texts = [part.get("text") for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    return [text for text in texts if isinstance(text, str)]
