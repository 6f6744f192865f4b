"""Serves a real model over real HTTP and returns token ids and log-probabilities as vLLM does.

    with TokenEndpoint(save_tiny_llama(folder)) as endpoint:
        ... base_url=endpoint.base_url, model="tiny", provider "vLLM" ...

It implements Chat Completions, whole and streamed. The tokenizer's chat template renders the prompt. The
server samples the reply token by token (`temperature`, `top_p`, `seed`, `logit_bias`) and parses tool calls
with the tokenizer's response template. A request can ask for `logprobs` and for `return_token_ids`
(`prompt_token_ids` on the reply; `token_ids` on the choice, including the end token). As in vLLM,
log-probabilities are those of the model before temperature and bias, unless `processed` is set. The server
computes one request at a time.

A model with random weights never calls a tool. `says` forces its output: the function receives the request
and returns a text, which the model emits token by token with its own log-probabilities for these tokens.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from tests.fakes.processes.live_server import LiveServer

MAX_TOKENS = 256


@dataclass(frozen=True)
class Sampled:
    """A sampled reply as token ids."""

    prompt_ids: list[int]
    ids: list[int]
    logprobs: list[float]
    finish_reason: str


class TokenEndpoint:
    """Context manager. It can be entered once.

    Args:
        folder: a model and a tokenizer with both templates, as written by `save_tiny_llama`.
        says: returns the text that the model is forced to emit for a request, or None to sample.
        processed: whether log-probabilities are those of the sampling distribution.
    """

    def __init__(
        self,
        folder: Path,
        *,
        says: Callable[[dict[str, Any]], str | None] = lambda body: None,
        processed: bool = False,
        port: int = 0,
    ) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
        self.requests: list[dict[str, Any]] = []
        """Bodies of the requests, in order of arrival."""
        self._says = says
        self._processed = processed
        self._lock = threading.Lock()
        routes = [
            Route("/v1/chat/completions", self._complete, methods=["POST"]),
            Route("/v1/models", self._models),
        ]
        self._served = LiveServer(Starlette(routes=routes), port)

    def __enter__(self) -> Self:
        self._served.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._served.__exit__(kind, value, trace)

    @property
    def base_url(self) -> str:
        return f"{self._served.origin}/v1"

    async def _models(self, request: Request) -> Response:
        return _json(200, {"object": "list", "data": [{"id": "tiny", "object": "model", "owned_by": "vllm"}]})

    async def _complete(self, request: Request) -> Response:
        body = json.loads(await request.body())
        self.requests.append(body)
        try:
            prompt_ids = self._prompt(body)
        except Exception as error:  # a template may raise any exception for messages that it cannot render
            return _json(400, {"error": {"message": f"{error}", "type": "BadRequestError", "code": 400}})
        sampled = await asyncio.to_thread(self._sample, prompt_ids, body)
        completion = self._completion(body, sampled)
        if body.get("stream"):
            return StreamingResponse(_events(body, completion), media_type="text/event-stream")
        return _json(200, completion)

    def _prompt(self, body: dict[str, Any]) -> list[int]:
        messages = [_with_objects(message) for message in body["messages"]]
        tools = body.get("tools") if body.get("tool_choice") != "none" else None
        rendered = self.tokenizer.apply_chat_template(
            messages, tools=tools or None, add_generation_prompt=True, return_dict=True
        )
        return list(rendered["input_ids"])

    def _sample(self, prompt_ids: list[int], body: dict[str, Any]) -> Sampled:
        import torch

        temperature = 1.0 if body.get("temperature") is None else float(body["temperature"])
        limit = body.get("max_completion_tokens") or body.get("max_tokens") or MAX_TOKENS
        generator = torch.Generator()
        if (seed := body.get("seed")) is None:
            generator.seed()
        else:
            generator.manual_seed(seed)
        bias = torch.zeros(self.model.config.vocab_size)
        for token, value in (body.get("logit_bias") or {}).items():
            bias[int(token)] = float(value)
        text = self._says(body)
        forced = None if text is None else [*self._encode(text), self.tokenizer.eos_token_id]
        ids: list[int] = []
        logprobs: list[float] = []
        cache, step = None, torch.tensor([prompt_ids])
        with self._lock, torch.inference_mode():
            while len(ids) < limit:
                out = self.model(input_ids=step, past_key_values=cache, use_cache=True)
                cache = out.past_key_values
                own = out.logits[0, -1].float()
                scores = own + bias
                if forced is not None:
                    token = forced[len(ids)]
                elif temperature > 0:
                    scores = _nucleus(scores / temperature, body.get("top_p") or 1.0)
                    token = int(torch.multinomial(scores.softmax(-1), 1, generator=generator))
                else:
                    token = int(scores.argmax())
                ids.append(token)
                reported = scores if self._processed else own
                logprobs.append(float(reported.log_softmax(-1)[token]))
                if token == self.tokenizer.eos_token_id:
                    return Sampled(prompt_ids, ids, logprobs, "stop")
                step = torch.tensor([[token]])
        return Sampled(prompt_ids, ids, logprobs, "length")

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _completion(self, body: dict[str, Any], sampled: Sampled) -> dict[str, Any]:
        message = self.tokenizer.parse_response(sampled.ids, prefix=sampled.prompt_ids)
        message = {"role": "assistant", "content": message.get("content"), **message}
        calls = message.get("tool_calls")
        if calls and body.get("tools") and body.get("tool_choice") != "none":
            message["tool_calls"] = [_as_sent(call) for call in calls]
        else:
            message.pop("tool_calls", None)
            message["content"] = self.tokenizer.decode(sampled.ids, skip_special_tokens=True)
        called = bool(message.get("tool_calls")) and sampled.finish_reason == "stop"
        choice: dict[str, Any] = {
            "index": 0,
            "message": message,
            "finish_reason": "tool_calls" if called else sampled.finish_reason,
            "logprobs": None,
        }
        completion: dict[str, Any] = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": body.get("model"),
            "choices": [choice],
            "usage": {
                "prompt_tokens": len(sampled.prompt_ids),
                "completion_tokens": len(sampled.ids),
                "total_tokens": len(sampled.prompt_ids) + len(sampled.ids),
            },
        }
        if body.get("logprobs"):
            choice["logprobs"] = {"content": self._entries(sampled)}
        if body.get("return_token_ids"):
            completion["prompt_token_ids"] = sampled.prompt_ids
            choice["token_ids"] = sampled.ids
        return completion

    def _entries(self, sampled: Sampled) -> list[dict[str, Any]]:
        entries = []
        for id, logprob in zip(sampled.ids, sampled.logprobs, strict=True):
            token = self.tokenizer.decode([id])
            entry = {"token": token, "logprob": logprob, "bytes": list(token.encode()), "top_logprobs": []}
            entries.append(entry)
        return entries


def consult_call(situation: str, *, tool: str = "consult_safety_rules") -> str:
    """Returns the text of a tool call in the format of the chat template."""
    arguments = json.dumps({"situation": situation})
    return f'<tool_call>\n{{"name": "{tool}", "arguments": {arguments}}}\n</tool_call>'


def _nucleus(scores: Any, share: float) -> Any:
    """Masks the scores outside the smallest set of tokens whose probability reaches `share`."""
    if share >= 1:
        return scores
    probabilities, order = scores.softmax(-1).sort(descending=True)
    outside = order[probabilities.cumsum(-1) - probabilities >= share]
    return scores.index_fill(0, outside, float("-inf"))


def _with_objects(message: dict[str, Any]) -> dict[str, Any]:
    """Converts the arguments of tool calls from JSON text to objects, as vLLM does for templates."""
    if not message.get("tool_calls"):
        return message
    calls = []
    for call in message["tool_calls"]:
        function = call["function"]
        calls.append({**call, "function": {**function, "arguments": json.loads(function["arguments"])}})
    return {**message, "tool_calls": calls}


def _as_sent(call: dict[str, Any]) -> dict[str, Any]:
    function = call["function"]
    arguments = function["arguments"]
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    sent = {"name": function["name"], "arguments": arguments}
    return {"id": f"chatcmpl-tool-{uuid.uuid4().hex}", "type": "function", "function": sent}


def _events(body: dict[str, Any], completion: dict[str, Any]) -> Iterator[str]:
    """Yields the completion as vLLM streams it: prompt ids, then ids and log-probabilities per piece."""
    (choice,) = completion["choices"]
    base = {**{k: completion[k] for k in ("id", "created", "model")}, "object": "chat.completion.chunk"}
    message, entries = choice["message"], (choice["logprobs"] or {}).get("content")

    def event(
        delta: dict[str, Any], finish: str | None = None, part: slice = slice(0, 0), **more: Any
    ) -> str:
        piece: dict[str, Any] = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        if part != slice(0, 0):
            if entries is not None:
                piece["logprobs"] = {"content": entries[part]}
            if "token_ids" in choice:
                piece["token_ids"] = choice["token_ids"][part]
        return f"data: {json.dumps({**base, **more, 'choices': [piece]})}\n\n"

    first = {k: completion[k] for k in ("prompt_token_ids",) if k in completion}
    yield event({"role": "assistant", "content": ""}, **first)
    half = completion["usage"]["completion_tokens"] // 2
    if content := message.get("content"):
        yield event({"content": content}, None, slice(0, half) if half else slice(0, 0))
    elif half:
        yield event({}, None, slice(0, half))
    for index, call in enumerate(message.get("tool_calls") or []):
        yield event({"tool_calls": [{**call, "index": index}]})
    yield event({}, choice["finish_reason"], slice(half, None))
    if (body.get("stream_options") or {}).get("include_usage"):
        yield f"data: {json.dumps({**base, 'choices': [], 'usage': completion['usage']})}\n\n"
    yield "data: [DONE]\n\n"


def _json(status: int, body: Any) -> Response:
    return Response(json.dumps(body), status, media_type="application/json")
