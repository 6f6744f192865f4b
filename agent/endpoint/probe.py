"""Probes an endpoint's capabilities and returns them as a row of the quirks table."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from agent.endpoint.client import Endpoint, key_header, public_base_url
from agent.endpoint.quirks import PROFILES, UNKNOWN_ENDPOINT, Quirks, Support, quirks_for_url, reasoning_field
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
_TOOL_QUESTION = "What time is it in Oslo? Use the tool get_time."
_CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "get_time", "arguments": '{"city": "Oslo"}'},
}
_NAMES_BY_OWNER = {
    "vllm": "vLLM",
    "sglang": "SGLang",
    "llamacpp": "llama.cpp",
    "library": "Ollama",
    "deepseek": "DeepSeek",
    "moonshot": "Kimi",
}
_OPEN_QUESTION = "Write any sentence that nobody has written before."
_SAMPLING_PROBES = 4
"""Replies that are compared. Four equal ones at a high temperature are very unlikely, even if short."""
_SAMPLING_PROBE_TOKENS = 12
_HIGH_TEMPERATURE = 1.5
_IDENTIFY_TIMEOUT = 5.0  # seconds
_SERVER_PATHS = frozenset({"/load_model", "/v1/chat/completions"})
"""Routes in the OpenAPI document of `transformers serve`."""
PROBE_STEPS = 13
"""Number of calls of `on_step` in one probe."""


@dataclass(frozen=True)
class ProbeResult:
    """The result of a probe: the row, the model that was used, and notes on other behaviour."""

    row: Quirks
    model: str
    notes: list[str]


async def probe_endpoint(
    base_url: str,
    model: str | None = None,
    *,
    api_key: str | None = None,
    timeout: float = 120.0,
    on_step: Callable[[str], None] = lambda step: None,
) -> ProbeResult:
    """Probes an endpoint with about a dozen small requests, a few hundred tokens in total.

    Args:
        base_url: base URL, usually ending in /v1.
        model: model name; None for the first model that the endpoint lists.
        api_key: sent as a bearer token.
        timeout: seconds for each request.
        on_step: called with the name of each of the `PROBE_STEPS` steps.

    Raises:
        EndpointError: if the endpoint cannot be reached, lists no model, or does not answer a plain question.
    """
    import httpx2

    shown, headers = public_base_url(base_url), key_header(api_key)
    # A server that fails one request may close the connection, so each request opens its own.
    limits = httpx2.Limits(max_keepalive_connections=0)
    async with httpx2.AsyncClient(headers=headers, timeout=timeout, limits=limits) as http:
        try:
            return await _Probe(http, base_url.rstrip("/"), model, on_step).run()
        except httpx2.HTTPError as error:
            raise EndpointError(
                f"the endpoint {shown} did not answer ({str(error) or type(error).__name__}): "
                "check that it is running",
                type="unreachable",
                setup=True,
            ) from error


SamplingRule = Literal["own", "shared, sampled", "shared, greedy"]
"""Which sampling a server applies to a request: its own, or one that all requests share."""


async def find_sampling_rule(
    http: httpx2.AsyncClient,
    base_url: str,
    model: str,
    first: Mapping[str, Any],
    *,
    limit: str = "max_tokens",
) -> SamplingRule:
    """Compares short replies at a high temperature with each other, and those at temperature 0.

    A model that gives one reply to every request looks like a server that shares greedy decoding.

    Args:
        http: sends the requests.
        base_url: base URL of the endpoint.
        model: model name.
        first: sampling fields of the first request, which a server may adopt for all later ones.
        limit: name of the field that limits the tokens of a reply.

    Raises:
        EndpointError: a request is refused.
    """

    async def reply(sampling: Mapping[str, Any]) -> str:
        messages = [{"role": "user", "content": _OPEN_QUESTION}]
        body = {"model": model, "messages": messages, limit: _SAMPLING_PROBE_TOKENS, **sampling}
        response = await http.post(f"{base_url}/chat/completions", json=body)
        message = _message(_json(response))
        if message is None:
            raise EndpointError(
                f"the endpoint {public_base_url(base_url)} refused a short request that checks its sampling "
                f"(status {response.status_code}): {truncate(response.text)}",
                type=f"http_{response.status_code}",
            )
        return json.dumps([message.get("content"), reasoning_field(message), message.get("tool_calls")])

    async def varies(temperature: float) -> bool:
        # One after the other: in another batch, the same computation may round differently.
        replies: set[str] = set()
        for _ in range(_SAMPLING_PROBES):
            replies.add(await reply({"temperature": temperature}))
            if len(replies) > 1:
                return True
        return False

    await reply(first)
    if not await varies(_HIGH_TEMPERATURE):
        return "shared, greedy"
    return "shared, sampled" if await varies(0.0) else "own"


async def check_sampling(
    endpoint: Endpoint, sampling: Mapping[str, Any], *, new_server: bool = False
) -> dict[str, Any] | None:
    """Checks that `transformers serve` samples as requested, before anything is logged.

    With `--continuous-batching`, it applies the sampling of its first request to all later ones. Other
    servers are not asked.

    Args:
        endpoint: endpoint of the requests that follow.
        sampling: their sampling fields.
        new_server: the server has answered no request yet, so it adopts these fields.

    Returns:
        The temperature and `top_p` in force; None if they were not checked.

    Raises:
        EndpointError: the server samples in another way, or in an unknown one.
    """
    import httpx2

    base_url = endpoint.base_url.rstrip("/")
    headers = key_header(endpoint.api_key)
    async with httpx2.AsyncClient(headers=headers, timeout=endpoint.timeout) as http:
        try:
            if not await _is_transformers_serve(http, endpoint):
                return None
            fields = {name: sampling[name] for name in ("temperature", "top_p") if name in sampling}
            rule = await find_sampling_rule(http, base_url, endpoint.model, fields)
        except httpx2.HTTPError as error:
            raise EndpointError(
                f"the endpoint {endpoint.public_url} did not answer ({str(error) or type(error).__name__}): "
                "check that it is running",
                type="unreachable",
                setup=True,
            ) from error
    greedy = fields.get("temperature") == 0
    if rule == "own" or (rule == "shared, greedy" and greedy):
        return fields
    if rule == "shared, sampled" and new_server and not greedy:
        return fields
    known = "without randomness (temperature 0)" if rule == "shared, greedy" else "with a fixed temperature"
    raise EndpointError(
        f"the endpoint {endpoint.public_url} samples every request {known} and ignores what the request asks "
        "for: transformers serve --continuous-batching keeps the sampling of its first request. Restart it, "
        f"and send nothing before this run{'' if greedy else ', with --new-server'}",
        type="sampling_ignored",
        setup=True,
    )


async def _is_transformers_serve(http: httpx2.AsyncClient, endpoint: Endpoint) -> bool:
    """Returns whether the endpoint is `transformers serve`, by --provider or by its OpenAPI document."""
    if endpoint.quirks is not UNKNOWN_ENDPOINT:
        return endpoint.quirks.own_sampling == "no"
    import httpx2

    parts = urlsplit(endpoint.base_url)
    try:
        reply = await http.get(f"{parts.scheme}://{parts.netloc}/openapi.json", timeout=_IDENTIFY_TIMEOUT)
    except httpx2.HTTPError:
        return False  # the run itself reports a server that does not answer
    paths = _json(reply).get("paths")
    return isinstance(paths, dict) and paths.keys() >= _SERVER_PATHS


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

    async def run(self) -> ProbeResult:
        self._step("models")
        profile = await self._identify()
        self._step("a plain question")
        message, usage = await self._plain_reply()
        row = replace(UNKNOWN_ENDPOINT, name=profile.name, token_limit=self._limit)  # type: ignore[arg-type]
        field = reasoning_field(message)
        if usage is None:
            self._notes.append("replies contain no token counts, so a token limit has no effect")
        self._step("unknown fields")
        row = replace(row, extra_fields=await self._accepts(ascl_probe=True))
        self._step("seed")
        row = replace(row, seed=await self._accepts(seed=1))
        self._step("log-probabilities")
        row = replace(row, logprobs=await self._returns("logprobs", logprobs=True))
        self._step("token ids")
        row = replace(row, token_ids=await self._returns("token_ids", return_token_ids=True))
        self._step("a stream")
        row = replace(row, stream_usage=await self._probe_stream())
        self._step("the Responses API")
        row = replace(row, responses=await self._probe_responses())
        self._step("a tool")
        tools, tool_reply = await self._probe_tools()
        row = replace(row, tools=tools)
        self._step("a required call")
        row = replace(row, tool_choice=await self._probe_required_call())
        self._step("malformed arguments in the history")
        broken = {**_CALL, "function": {**_CALL["function"], "arguments": '{"city": '}}  # type: ignore[dict-item]
        row = replace(row, malformed=await self._accepts_history({"content": None, "tool_calls": [broken]}))
        self._step("reasoning in the history")
        field = field or reasoning_field(tool_reply)
        if field:
            accepted = await self._accepts_history({"content": None, field: "Hm.", "tool_calls": [_CALL]})
            if accepted == "no":
                self._notes.append(f"the endpoint rejects {field} in the history")
        self._step("sampling of each request")
        row = replace(row, own_sampling=await self._probe_sampling())
        return ProbeResult(replace(row, reasoning=field or "none"), self._model, self._notes)

    async def _probe_sampling(self) -> Support:
        try:
            rule = await find_sampling_rule(self._http, self._url, self._model, {}, limit=self._limit)
        except EndpointError:
            return "?"
        if rule == "own":
            return "yes"
        if rule == "shared, sampled":
            self._notes.append(
                "the endpoint ignores the temperature of a request; transformers serve --continuous-batching "
                "applies the sampling of its first request to all: restart it before a run"
            )
            return "no"
        return "?"

    async def _identify(self) -> Quirks:
        """Identifies the provider by its URL or its list of models, and selects the model."""
        reply = await self._http.get(f"{self._url}/models")
        data = _json(reply).get("data")
        models = [m for m in data if isinstance(m, dict)] if isinstance(data, list) else []
        if not self._model:
            if not models:
                raise EndpointError(
                    f"the endpoint {self._url} lists no model (status {reply.status_code}): "
                    "pass --model NAME, and check that the base URL ends in /v1",
                    type="no_models",
                    setup=True,
                )
            self._model = str(models[0].get("id"))
        if (row := quirks_for_url(self._url)) is not UNKNOWN_ENDPOINT:
            return row
        owners = " ".join(str(m.get("owned_by")) for m in models) + " " + reply.headers.get("server", "")
        words = owners.casefold().replace(".", "")
        name = next((name for word, name in _NAMES_BY_OWNER.items() if word in words), None)
        return next((row for row in PROFILES if row.name == name), UNKNOWN_ENDPOINT)

    async def _plain_reply(self) -> tuple[dict[str, Any], Any]:
        reply = await self._send()
        if reply.status_code == 400 and "max_completion_tokens" in reply.text:
            self._limit = "max_completion_tokens"
            reply = await self._send()
        message = _message(_json(reply))
        if reply.status_code != 200 or message is None:
            raise EndpointError(
                f"the endpoint {self._url} does not answer a plain question with {self._model!r} "
                f"(status {reply.status_code}): {truncate(reply.text)}",
                type=f"http_{reply.status_code}",
                setup=True,
            )
        return message, _json(reply).get("usage")

    async def _send(self, question: str = "Say hello.", /, **more: Any) -> httpx2.Response:
        messages = more.pop("messages", [{"role": "user", "content": question}])
        body = {"model": self._model, "messages": messages, self._limit: 64, **more}
        return await self._http.post(f"{self._url}/chat/completions", json=body)

    async def _accepts(self, question: str = "Say hello.", /, **more: Any) -> Support:
        reply = await self._send(question, **more)
        return "yes" if _message(_json(reply)) is not None else "no"

    async def _returns(self, field: str, **more: Any) -> Support:
        choices = _json(await self._send(**more)).get("choices")
        first = choices[0] if isinstance(choices, list) and choices else {}
        return "yes" if isinstance(first, dict) and first.get(field) else "no"

    async def _probe_stream(self) -> Support:
        """Returns whether a stream ends with token counts; adds a note if the endpoint does not stream."""
        for options in ({"stream_options": {"include_usage": True}}, {}):
            reply = await self._send(stream=True, **options)
            if reply.status_code == 200 and "data:" in reply.text:
                events = [line[5:].strip() for line in reply.text.splitlines() if line.startswith("data:")]
                if "[DONE]" not in events:
                    self._notes.append("streams do not end with [DONE]")
                return "yes" if any('"usage":{' in event.replace(" ", "") for event in events) else "no"
        self._notes.append("the endpoint does not stream")
        return "no"

    async def _probe_responses(self) -> Support:
        body = {"model": self._model, "input": "Say hello.", "max_output_tokens": 64, "store": False}
        reply = await self._http.post(f"{self._url}/responses", json=body)
        return "yes" if isinstance(_json(reply).get("output"), list) else "no"

    async def _probe_tools(self) -> tuple[Any, dict[str, Any]]:
        message = _message(_json(await self._send(_TOOL_QUESTION, tools=[_TOOL])))
        if message is None:
            return "no", {}
        if message.get("tool_calls"):
            return "yes", message
        if "<tool_call>" in str(message.get("content")):
            return "text", message
        self._notes.append("the model did not call the requested tool")
        return "?", message

    async def _probe_required_call(self) -> Support:
        """Returns whether the endpoint enforces a required call; some servers ignore the field."""
        message = _message(_json(await self._send(tools=[_TOOL], tool_choice="required")))
        if message is not None and not message.get("tool_calls"):
            self._notes.append("the endpoint accepts tool_choice but does not enforce it")
        return "yes" if message is not None and message.get("tool_calls") else "no"

    async def _accepts_history(self, turn: dict[str, Any]) -> Support:
        messages = [
            {"role": "user", "content": _TOOL_QUESTION},
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
