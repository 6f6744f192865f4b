"""Builds Responses API replies for `ScriptedEndpoint`, whole or streamed as the request demands.

ScriptedEndpoint([responds(thought("Hm."), item_call("gun")), responds(says("No."))], strict=False)
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

from tests.fakes.endpoints.scripted import Raw

_NUMBERS = itertools.count()


def message_item(text: str) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": []}
    return {
        "type": "message",
        "id": _id("msg"),
        "role": "assistant",
        "status": "completed",
        "content": [part],
    }


def reasoning_item(text: str) -> dict[str, Any]:
    summary = [{"type": "summary_text", "text": text}]
    return {"type": "reasoning", "id": _id("rs"), "summary": summary, "encrypted_content": f"sealed {text}"}


def call_item(
    situation: str = "", *, name: str = "consult_safety_rules", arguments: str | None = None, id: str = "o1"
) -> dict[str, Any]:
    raw = json.dumps({"situation": situation}) if arguments is None else arguments
    call = {"type": "function_call", "id": _id("fc"), "call_id": id, "name": name, "arguments": raw}
    return {**call, "status": "completed"}


def response_with(*items: dict[str, Any], id: str | None = None) -> Callable[[dict[str, Any]], Raw]:
    """Returns a scripted answer with these output items."""
    whole = {
        "id": id or _id("resp"),
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "model": "scripted",
        "output": list(items),
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": 20,
            "output_tokens": 5,
            "total_tokens": 25,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 2},
        },
    }

    def answer(body: dict[str, Any]) -> Raw:
        response = {**whole, "instructions": body.get("instructions")}
        if not body.get("stream"):
            return Raw(200, json.dumps(response))
        return Raw(200, _events(response), content_type="text/event-stream")

    return answer


def _events(whole: dict[str, Any]) -> str:
    initial = {**whole, "output": [], "status": "in_progress", "usage": None}
    events: list[dict[str, Any]] = [
        {"type": f"response.{n}", "response": initial} for n in ("created", "in_progress")
    ]
    for index, item in enumerate(whole["output"]):
        place = {"output_index": index, "item_id": item["id"]}
        empty = {**item, "status": "in_progress"}
        if item["type"] == "message":
            (part,) = item["content"]
            inner = [
                {"type": "response.content_part.added", "content_index": 0, "part": {**part, "text": ""}}
            ]
            inner += [_delta("output_text", piece) for piece in _pieces(part["text"])]
            inner.append(
                {
                    "type": "response.output_text.done",
                    "content_index": 0,
                    "text": part["text"],
                    "logprobs": [],
                }
            )
            inner.append({"type": "response.content_part.done", "content_index": 0, "part": part})
            empty["content"] = []
        elif item["type"] == "function_call":
            name = "response.function_call_arguments"
            inner = [{"type": f"{name}.delta", "delta": piece} for piece in _pieces(item["arguments"])]
            inner.append({"type": f"{name}.done", "arguments": item["arguments"], "name": item["name"]})
            empty["arguments"] = ""
        else:
            (part,) = item["summary"]
            inner = [
                {"type": "response.reasoning_summary_text.delta", "summary_index": 0, "delta": part["text"]}
            ]
        events.append({"type": "response.output_item.added", "output_index": index, "item": empty})
        events += [{**place, **each} for each in inner]
        events.append({"type": "response.output_item.done", "output_index": index, "item": item})
    events.append({"type": "response.completed", "response": whole})
    numbered = ({**each, "sequence_number": number} for number, each in enumerate(events))
    return "".join(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n" for each in numbered)


def _delta(kind: str, piece: str) -> dict[str, Any]:
    return {"type": f"response.{kind}.delta", "content_index": 0, "delta": piece, "logprobs": []}


def _pieces(text: str) -> list[str]:
    return [text[i : i + 5] for i in range(0, len(text), 5)]


def _id(kind: str) -> str:
    return f"{kind}_{next(_NUMBERS)}"
