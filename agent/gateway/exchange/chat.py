"""The conversation of a Chat Completions request."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from agent.endpoint import REASONING_FIELDS, parse_reply
from agent.episode import Api, Message, to_request_message
from agent.gateway.exchange.conversation import Conversation, RequestBody, SplitReply, Stage
from agent.gateway.exchange.mixed_calls import MixedCallStore
from agent.gateway.wire import CallerRequest, reason_tools_unusable
from agent.tools import ToolOffer


class ChatConversation(Conversation):
    """A list of messages."""

    api: ClassVar[Api] = "chat"
    text_part: ClassVar[str] = "text"

    def __init__(
        self,
        request: CallerRequest,
        offer: ToolOffer | None,
        store: MixedCallStore,
        *,
        hold: bool,
        logit_bias: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(request, offer, hold=hold)
        self._store = store
        messages = request.body.get("messages")
        self.entries = list(messages) if isinstance(messages, list) else []
        if offer is not None:
            self.entries, self.restored = store.restore(request.caller, request.body, self.entries)
        self.given = len(self.entries)
        given_bias = request.body.get("logit_bias") or {}
        if offer is not None and logit_bias and isinstance(given_bias, dict):
            self.logit_bias = {**logit_bias, **given_bias}

    @staticmethod
    def reason_not_offered(body: Mapping[str, Any]) -> str | None:
        if not isinstance(body.get("messages"), list):
            return "no messages"
        if body.get("tool_choice") == "none":
            return "tool_choice is none"
        if body.get("functions"):
            return "functions are used in place of tools"
        if isinstance(body.get("n"), int) and body["n"] > 1:
            return "n is more than 1"
        return reason_tools_unusable(body)

    def bodies(self, stage: Stage) -> list[RequestBody]:
        if self.offer is None:
            return [RequestBody(self.request.raw)]
        plain = {**self.request.body, "messages": self.with_hint(self.entries)}
        bodies = [plain]
        if stage == "offered":
            bodies = [_with_tool(plain, self.offer)]
            if self.logit_bias is not None:  # the body without it is for servers that refuse it
                bodies.insert(0, {**bodies[0], "logit_bias": self.logit_bias})
        elif stage == "forbidden" and not plain.get("tools"):
            # Some servers refuse calls in the history of a request without tools.
            bodies = [{**_with_tool(plain, self.offer), "tool_choice": "none"}, plain]
        biased = bodies[0].get("logit_bias")
        requests = [
            RequestBody(json.dumps(body).encode(), has_bias=body.get("logit_bias") == biased)
            for body in bodies
        ]
        if stage == "offered" and not self.has_hidden_turns:
            requests.append(RequestBody(self.request.raw, has_offer=False))
        return requests

    def withdraw_offer(self) -> None:
        self.offer = self.hint = self.logit_bias = None
        self.entries = list(self.request.body["messages"])
        self.given = len(self.entries)

    def parse(self, reply: dict[str, Any], turn: int) -> SplitReply:
        choices = reply.get("choices")
        choice = choices[0] if choices else {}
        message: Message = choice.get("message") or {}
        entries = message.get("tool_calls")
        entries = [e for e in entries if isinstance(e, dict)] if isinstance(entries, list) else []
        hidden_entries = [_renamed(e, self.name_to_replay) for e in entries if self._is_hidden(e)]
        other_entries = [entry for entry in entries if not self._is_hidden(entry)]
        hidden_calls, replay, visible = [], [message], message
        if hidden_entries:
            taken = {entry.get("id") for entry in other_entries} | _call_ids(self.entries)
            read = parse_reply(
                {"tool_calls": hidden_entries},
                turn=turn,
                offered=[],
                taken=[id for id in taken if id],
                text_mode=False,
            )
            repaired = iter(read.message["tool_calls"])
            calls = [next(repaired) if self._is_hidden(entry) else entry for entry in entries]
            hidden_calls = read.calls
            replay = [to_request_message({**message, "tool_calls": calls})]
            visible = self._visible(message, other_entries)
        return SplitReply(
            hidden_calls=hidden_calls,
            replay=replay,
            visible=visible,
            mixed=bool(other_entries),
            reply=reply,
            finish_reason=choice.get("finish_reason"),
            usage=reply.get("usage"),
            model=reply.get("model"),
        )

    def _is_hidden(self, entry: dict[str, Any]) -> bool:
        function = entry.get("function", entry.get("custom"))
        return self.hides(function.get("name") if isinstance(function, dict) else None)

    def _visible(self, message: Message, other_entries: list[dict[str, Any]]) -> Message:
        visible = {key: value for key, value in message.items() if key != "tool_calls"}
        if other_entries:
            visible["tool_calls"] = other_entries
        if self.hold:
            visible["content"] = None
        return visible

    def add_hidden_turn(self, parsed: SplitReply, results: Mapping[str, str]) -> None:
        (message,) = parsed.replay
        self.has_hidden_turns = True
        self.entries += [message, *_tool_messages(results)]
        for name in REASONING_FIELDS:
            if isinstance(text := message.get(name), str) and text:
                earlier = self.reasoning.get(name)
                self.reasoning[name] = text if earlier is None else f"{earlier}\n\n{text}"

    def add_mixed_reply(self, parsed: SplitReply, results: Mapping[str, str]) -> None:
        (message,) = parsed.replay
        self.reply = [message, *_tool_messages(results)]
        self._store.add(self.request.caller, self.request.body, message, results)

    def add_visible_reply(self, parsed: SplitReply) -> None:
        self.reply = [parsed.visible] if parsed.visible else []
        if self.offer is not None and parsed.mixed:
            self._store.add(self.request.caller, self.request.body, parsed.visible, {})

    def given_messages(self, *, with_hint: bool = False) -> list[Message]:
        given = self.entries[: self.given]
        entries = self.with_hint(given) if with_hint else given
        return [message for message in entries if isinstance(message, dict)]

    def written_messages(self) -> list[Message]:
        return [*self.entries[self.given :], *self.reply]


def _with_tool(body: dict[str, Any], offer: ToolOffer) -> dict[str, Any]:
    """Returns the request with the tool added last, so that a prompt cache still covers the other tools."""
    changed = {**body, "tools": [*(body.get("tools") or []), offer.tool]}
    choice = body.get("tool_choice")
    if isinstance(choice, dict) and isinstance(allowed := choice.get("allowed_tools"), dict):
        entry = {"type": "function", "function": {"name": offer.name}}
        allowed = {**allowed, "tools": [*(allowed.get("tools") or []), entry]}
        changed["tool_choice"] = {**choice, "allowed_tools": allowed}
    return changed


def _renamed(entry: dict[str, Any], rename: Callable[[Any], str]) -> dict[str, Any]:
    """Returns a call as a function call with another name."""
    custom = entry.get("custom")
    inner = {"arguments": custom.get("input")} if isinstance(custom, dict) else entry["function"]
    name = rename((custom or entry["function"])["name"])
    rest = {key: value for key, value in entry.items() if key != "custom"}
    return {**rest, "type": "function", "function": {**inner, "name": name}}


def _tool_messages(results: Mapping[str, str]) -> list[Message]:
    return [{"role": "tool", "tool_call_id": id, "content": text} for id, text in results.items()]


def _call_ids(messages: list[Any]) -> set[Any]:
    calls = [m.get("tool_calls") for m in messages if isinstance(m, dict)]
    return {
        e.get("id") for entries in calls if isinstance(entries, list) for e in entries if isinstance(e, dict)
    }
