"""A real model behind real HTTP that returns token ids and log-probabilities the way vLLM does.

    with TokenEndpoint(save_tiny_llama(folder)) as endpoint:
        ... base_url=endpoint.base_url, model="tiny", provider "vLLM" ...

Chat Completions, whole and streamed. The prompt is rendered by the tokenizer's chat template, the reply is
sampled token by token (`temperature`, `top_p`, `seed`, `logit_bias`) and its tool calls are read by the
tokenizer's response template. On demand: `return_token_ids` (`prompt_token_ids` on the reply, `token_ids` on
the choice, the end token included) and `logprobs`. As in vLLM, log-probabilities are the model's own, before
temperature and bias, unless `processed` is set. One request is computed at a time.

A model of random weights calls no tool by itself. `says` may put words into its mouth: a function of the
request whose text the model is made to write, token by token, with the log-probabilities that it gives them.
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

MOST_TOKENS = 256


@dataclass(frozen=True)
class Sampled:
    """A reply as tokens."""

    prompt_ids: list[int]
    ids: list[int]
    logprobs: list[float]
    finish_reason: str


class TokenEndpoint:
    """Use as a context manager; may be entered once.

    Args:
        folder: of a model and a tokenizer with both templates, as `save_tiny_llama` writes it.
        says: what the model is made to write in answer to a request; None, or returning None, to sample.
        processed: whether log-probabilities are those of the distribution that was sampled from.
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
        """Bodies of the requests, in the order they came."""
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
        except Exception as error:  # a template refuses what it cannot render, in whatever way
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
        most = body.get("max_completion_tokens") or body.get("max_tokens") or MOST_TOKENS
        generator = torch.Generator()
        if (seed := body.get("seed")) is None:
            generator.seed()
        else:
            generator.manual_seed(seed)
        bias = torch.zeros(self.model.config.vocab_size)
        for token, value in (body.get("logit_bias") or {}).items():
            bias[int(token)] = float(value)
        said = self._says(body)
        given = None if said is None else [*self._encoded(said), self.tokenizer.eos_token_id]
        ids: list[int] = []
        logprobs: list[float] = []
        cache, step = None, torch.tensor([prompt_ids])
        with self._lock, torch.inference_mode():
            while len(ids) < most:
                out = self.model(input_ids=step, past_key_values=cache, use_cache=True)
                cache = out.past_key_values
                own = out.logits[0, -1].float()
                scores = own + bias
                if given is not None:
                    chosen = given[len(ids)]
                elif temperature > 0:
                    scores = _nucleus(scores / temperature, body.get("top_p") or 1.0)
                    chosen = int(torch.multinomial(scores.softmax(-1), 1, generator=generator))
                else:
                    chosen = int(scores.argmax())
                ids.append(chosen)
                shown = scores if self._processed else own
                logprobs.append(float(shown.log_softmax(-1)[chosen]))
                if chosen == self.tokenizer.eos_token_id:
                    return Sampled(prompt_ids, ids, logprobs, "stop")
                step = torch.tensor([[chosen]])
        return Sampled(prompt_ids, ids, logprobs, "length")

    def _encoded(self, text: str) -> list[int]:
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
    """The text of a call, as the chat template writes it."""
    arguments = json.dumps({"situation": situation})
    return f'<tool_call>\n{{"name": "{tool}", "arguments": {arguments}}}\n</tool_call>'


def _nucleus(scores: Any, share: float) -> Any:
    """The scores with everything outside the smallest set of that probability put out of reach."""
    if share >= 1:
        return scores
    probabilities, order = scores.softmax(-1).sort(descending=True)
    outside = order[probabilities.cumsum(-1) - probabilities >= share]
    return scores.index_fill(0, outside, float("-inf"))


def _with_objects(message: dict[str, Any]) -> dict[str, Any]:
    """A message whose calls carry their arguments as objects, as vLLM hands them to a template."""
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
    """The completion as vLLM streams it: prompt ids first, then the ids and scores of each piece."""
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
