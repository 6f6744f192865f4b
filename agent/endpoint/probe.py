"""What an endpoint can do, found out by asking it: a row of the quirks table."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from agent.endpoint.client import key_header, public_url_of
from agent.endpoint.quirks import PROFILES, UNKNOWN_ENDPOINT, Quirks, Support, quirks_of, reasoning_field
from agent.endpoint.tool_calls import truncate
from agent.errors import EndpointError

if TYPE_CHECKING:
    import httpx2

_TOOL = {
    "type": "function",
    "function": {
        "name": "get_time",
        "description": "The current time in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
_CLOCK = "What time is it in Oslo? Use the tool get_time."
_CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "get_time", "arguments": '{"city": "Oslo"}'},
}
_OWNERS = {
    "vllm": "vLLM",
    "sglang": "SGLang",
    "llamacpp": "llama.cpp",
    "library": "Ollama",
    "deepseek": "DeepSeek",
    "moonshot": "Kimi",
}
STEPS = 12


@dataclass(frozen=True)
class Probed:
    """What was found: the row, the model that was asked, and a sentence for each thing worth knowing."""

    row: Quirks
    model: str
    notes: list[str]


async def probe(
    base_url: str,
    model: str | None = None,
    *,
    api_key: str | None = None,
    timeout: float = 120.0,
    on_step: Callable[[str], None] = lambda what: None,
) -> Probed:
    """Ask an endpoint about a dozen small questions, a few hundred tokens in all.

    Args:
        base_url: with /v1.
        model: None for the first that the endpoint lists.
        api_key: sent as a bearer token.
        timeout: seconds for each request.
        on_step: told what is being asked, `STEPS` times.

    Raises:
        EndpointError: when it cannot be reached, names no model, or does not answer a plain question.
    """
    import httpx2

    shown, headers = public_url_of(base_url), key_header(api_key)
    # A server that fails at one question may break the connection off: each question has its own.
    limits = httpx2.Limits(max_keepalive_connections=0)
    async with httpx2.AsyncClient(headers=headers, timeout=timeout, limits=limits) as http:
        try:
            return await _Probe(http, base_url.rstrip("/"), model, on_step).run()
        except httpx2.HTTPError as error:
            raise EndpointError(
                f"the endpoint {shown} did not answer ({str(error) or type(error).__name__}): is it running?",
                type="unreachable",
                setup=True,
            ) from error


class _Probe:
    def __init__(
        self, http: httpx2.AsyncClient, base_url: str, model: str | None, on_step: Callable[[str], None]
    ) -> None:
        self._http = http
        self._url = base_url
        self._model = model or ""
        self._step = on_step
        self._limit = "max_tokens"
        self._notes: list[str] = []

    async def run(self) -> Probed:
        self._step("models")
        known = await self._known()
        self._step("a plain question")
        message, usage = await self._plain()
        row = replace(UNKNOWN_ENDPOINT, name=known.name, token_limit=self._limit)  # type: ignore[arg-type]
        thought = reasoning_field(message)
        if usage is None:
            self._notes.append("a reply does not tell its tokens, so a token limit cannot hold")
        self._step("fields that it does not know")
        row = replace(row, extra_fields=await self._accepts(ascl_probe=True))
        self._step("seed")
        row = replace(row, seed=await self._accepts(seed=1))
        self._step("log-probabilities")
        row = replace(row, logprobs=await self._gives("logprobs", logprobs=True))
        self._step("token ids")
        row = replace(row, token_ids=await self._gives("token_ids", return_token_ids=True))
        self._step("a stream")
        row = replace(row, stream_usage=await self._streams())
        self._step("the Responses API")
        row = replace(row, responses=await self._responds())
        self._step("a tool")
        tools, called = await self._tools()
        row = replace(row, tools=tools)
        self._step("a required call")
        row = replace(row, tool_choice=await self._requires())
        self._step("malformed arguments in the history")
        broken = {**_CALL, "function": {**_CALL["function"], "arguments": '{"city": '}}  # type: ignore[dict-item]
        row = replace(row, malformed=await self._echoes({"content": None, "tool_calls": [broken]}))
        self._step("a thought in the history")
        thought = thought or reasoning_field(called)
        if thought:
            echoed = await self._echoes({"content": None, thought: "Hm.", "tool_calls": [_CALL]})
            if echoed == "no":
                self._notes.append(f"it refuses {thought} when that is sent back")
        return Probed(replace(row, reasoning=thought or "none"), self._model, self._notes)

    async def _known(self) -> Quirks:
        """The provider, as far as its list of models tells; chooses the model."""
        reply = await self._http.get(f"{self._url}/models")
        listed = _json(reply).get("data")
        models = [m for m in listed if isinstance(m, dict)] if isinstance(listed, list) else []
        if not self._model:
            if not models:
                raise EndpointError(
                    f"the endpoint {self._url} lists no model (status {reply.status_code}): "
                    "pass --model NAME, and check that the address ends in /v1",
                    type="no_models",
                    setup=True,
                )
            self._model = str(models[0].get("id"))
        if (row := quirks_of(self._url)) is not UNKNOWN_ENDPOINT:
            return row
        owners = " ".join(str(m.get("owned_by")) for m in models) + " " + reply.headers.get("server", "")
        words = owners.casefold().replace(".", "")
        name = next((name for word, name in _OWNERS.items() if word in words), None)
        return next((row for row in PROFILES if row.name == name), UNKNOWN_ENDPOINT)

    async def _plain(self) -> tuple[dict[str, Any], Any]:
        reply = await self._ask()
        if reply.status_code == 400 and "max_completion_tokens" in reply.text:
            self._limit = "max_completion_tokens"
            reply = await self._ask()
        message = _message(_json(reply))
        if reply.status_code != 200 or message is None:
            raise EndpointError(
                f"the endpoint {self._url} does not answer a plain question with {self._model!r} "
                f"(status {reply.status_code}): {truncate(reply.text)}",
                type=f"http_{reply.status_code}",
                setup=True,
            )
        return message, _json(reply).get("usage")

    async def _ask(self, question: str = "Say hello.", /, **more: Any) -> httpx2.Response:
        messages = more.pop("messages", [{"role": "user", "content": question}])
        body = {"model": self._model, "messages": messages, self._limit: 64, **more}
        return await self._http.post(f"{self._url}/chat/completions", json=body)

    async def _accepts(self, question: str = "Say hello.", /, **more: Any) -> Support:
        reply = await self._ask(question, **more)
        return "yes" if _message(_json(reply)) is not None else "no"

    async def _gives(self, field: str, **more: Any) -> Support:
        choices = _json(await self._ask(**more)).get("choices")
        first = choices[0] if isinstance(choices, list) and choices else {}
        return "yes" if isinstance(first, dict) and first.get(field) else "no"

    async def _streams(self) -> Support:
        """Whether a stream ends with its tokens; a note when it does not stream at all."""
        for options in ({"stream_options": {"include_usage": True}}, {}):
            reply = await self._ask(stream=True, **options)
            if reply.status_code == 200 and "data:" in reply.text:
                events = [line[5:].strip() for line in reply.text.splitlines() if line.startswith("data:")]
                if "[DONE]" not in events:
                    self._notes.append("a stream does not end in [DONE]")
                return "yes" if any('"usage":{' in event.replace(" ", "") for event in events) else "no"
        self._notes.append("it does not stream")
        return "no"

    async def _responds(self) -> Support:
        body = {"model": self._model, "input": "Say hello.", "max_output_tokens": 64, "store": False}
        reply = await self._http.post(f"{self._url}/responses", json=body)
        return "yes" if isinstance(_json(reply).get("output"), list) else "no"

    async def _tools(self) -> tuple[Any, dict[str, Any]]:
        message = _message(_json(await self._ask(_CLOCK, tools=[_TOOL])))
        if message is None:
            return "no", {}
        if message.get("tool_calls"):
            return "yes", message
        if "<tool_call>" in str(message.get("content")):
            return "text", message
        self._notes.append("the model did not call the tool that it was asked to use")
        return "?", message

    async def _requires(self) -> Support:
        """Whether a required call is made where nothing asks for one; some pay the field no heed."""
        message = _message(_json(await self._ask(tools=[_TOOL], tool_choice="required")))
        if message is not None and not message.get("tool_calls"):
            self._notes.append("it takes tool_choice, but the model need not call")
        return "yes" if message is not None and message.get("tool_calls") else "no"

    async def _echoes(self, turn: dict[str, Any]) -> Support:
        messages = [
            {"role": "user", "content": _CLOCK},
            {"role": "assistant", **turn},
            {"role": "tool", "tool_call_id": "call_1", "content": "12:00"},
        ]
        return await self._accepts(messages=messages, tools=[_TOOL])


def _json(reply: httpx2.Response) -> dict[str, Any]:
    try:
        value = json.loads(reply.text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) and reply.status_code == 200 else {}


def _message(data: dict[str, Any]) -> dict[str, Any] | None:
    choices = data.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, dict) else None
    return message if isinstance(message, dict) else None
