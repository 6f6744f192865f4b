"""MCP server: the consult tool, resources for the rulebook and its rules, and a system prompt."""

from __future__ import annotations

import json
import logging
from typing import Annotated, Any

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ResourceNotFoundError
from mcp.server.mcpserver.tools import Tool
from mcp.shared.exceptions import MCPError
from mcp.types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    CallToolResult,
    GetPromptResult,
    InputRequiredResult,
    PromptMessage,
    TextContent,
    ToolAnnotations,
)
from mcp.types import Tool as MCPTool
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rule_server.api.error_responses import error_response
from rule_server.errors import AuditError, ConsultError, NotReadyError
from rule_server.schemas import ConsultRequest, ConsultResponse, RulebookRef, RuleView, parse_request
from rule_server.service.guidance import (
    HINT_VERSION,
    RULE_TOOL,
    guidance,
    has_packaged_scope,
    hint_line,
    tool_description,
)
from rule_server.service.rule_service import RuleService

log = logging.getLogger(__name__)

PROMPT = "safety_rules_guidance"
METHOD_HEADER = b"mcp-method"
"""Header in which clients of the stateless protocol revision name the method."""
INVALID_ARGUMENTS = "ascl/invalid-arguments"
"""Key in `_meta` of an error result: the arguments are invalid, so the model can correct them. An error
result without it means that the service failed."""
BATCH_ERROR = "batches are not supported: send each JSON-RPC message by itself"
HINT_PROMPT = "safety_rules_hint"
HINT = "ascl/hint"
"""Key in `_meta` of the hint: the version of its wording, and the verdict, rules and rulebook behind it."""
PACKAGED_SCOPE = "ascl/packaged-scope"
"""Key in `_meta` of the prompt: whether the rulebook is to be consulted exactly when the packaged one is.
Then an agent may use its own system text for the packaged rules."""


class ConsultTool(Tool):
    """The tool, with arguments validated by `ConsultRequest`: strict types, one sentence per mistake.

    The SDK's own validation parses strings as JSON, ignores unknown arguments and returns a raw report.
    """

    async def run(
        self, arguments: dict[str, Any], context: Context[Any, Any], convert_result: bool = False
    ) -> Any:
        try:
            request = parse_request(arguments)
            # The result is built from the response model, so the SDK need not validate it again.
            return await self.fn(request)
        except ConsultError as error:
            return _error_result(str(error), {INVALID_ARGUMENTS: True})
        except (NotReadyError, AuditError) as error:
            return _error_result(str(error))
        except Exception:
            # The SDK would return the text of the exception, which may name files of this machine.
            log.exception("a consultation failed")
            return _error_result("the rule service failed, so nothing is answered; its log says why")


def _error_result(text: str, meta: dict[str, Any] | None = None) -> CallToolResult:
    return CallToolResult(content=[TextContent(text=text)], is_error=True, _meta=meta)


class RuleServer(MCPServer[Any]):
    """The SDK's server, which by itself reports an unknown prompt as an internal error.

    The tool's description follows the rulebook, which may change while it is served.
    """

    def __init__(self, service: RuleService, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._service = service

    async def list_tools(self) -> list[MCPTool]:
        description = _description(self._service)
        return [tool.model_copy(update={"description": description}) for tool in await super().list_tools()]

    async def get_prompt(
        self,
        name: str,
        arguments: dict[str, Any] | None = None,
        context: Context[Any, Any] | None = None,
    ) -> GetPromptResult | InputRequiredResult:
        if name == HINT_PROMPT:
            return await self._hint(arguments or {})
        if name != PROMPT:
            raise MCPError(INVALID_PARAMS, f"unknown prompt {name[:64]!r}: use {PROMPT} or {HINT_PROMPT}")
        if arguments:
            raise MCPError(INVALID_PARAMS, f"the prompt {PROMPT} takes no arguments: leave them out")
        result = await super().get_prompt(name, arguments, context)
        packaged = has_packaged_scope(self._service.rulebook)
        return result.model_copy(update={"meta": {PACKAGED_SCOPE: packaged}})

    async def _hint(self, arguments: dict[str, Any]) -> GetPromptResult:
        """Answers the hint here and not in the prompt's function, which cannot return `_meta`."""
        if arguments.keys() != {"request"}:
            raise MCPError(INVALID_PARAMS, f"the prompt {HINT_PROMPT} takes one argument: request")
        try:
            response = await self._service.hint(parse_request({"situation": arguments["request"]}))
        except (ConsultError, NotReadyError, AuditError) as error:
            code = INVALID_PARAMS if isinstance(error, ConsultError) else INTERNAL_ERROR
            raise MCPError(code, str(error).replace("`situation`", "`request`")) from None
        content = TextContent(text=hint_line(response))
        fields = response.model_dump(mode="json", exclude={"rules": {"__all__": {"text", "title"}}})
        return GetPromptResult(
            messages=[PromptMessage(role="user", content=content)],
            _meta={HINT: {"version": HINT_VERSION, **fields}},
        )


def _description(service: RuleService) -> str:
    return service.settings.tool_description or tool_description(service.rulebook)


def create_mcp(service: RuleService, version: str) -> MCPServer[Any]:
    """Creates the MCP server of a service. Each app needs a new one, since its session manager runs once."""

    async def consult(request: ConsultRequest) -> Annotated[CallToolResult, ConsultResponse]:
        response = await service.consult(request)
        return CallToolResult(
            content=[TextContent(text=response.as_text())],
            structured_content=response.model_dump(mode="json"),
        )

    tool = ConsultTool.from_function(
        consult,
        name=RULE_TOOL,
        title="Consult the safety rules",
        description=_description(service),
        annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False),
    )
    tool.parameters = compact_schema(ConsultRequest.model_json_schema())
    tool.fn_metadata.output_schema = compact_schema(ConsultResponse.model_json_schema(mode="serialization"))
    server = RuleServer(
        service,
        "ascl-rules",
        title="Safety rules",
        version=version,
        instructions=f"Safety rules to consult when a request is delicate, by the tool {RULE_TOOL}.",
        tools=[tool],
        log_level="WARNING",
    )

    @server.resource(
        "rulebook://current",
        name="rulebook",
        description="Name, version and digest of the rulebook being served.",
        mime_type="application/json",
    )
    def rulebook() -> str:
        return RulebookRef.of(service.rulebook).model_dump_json()

    @server.resource(
        "rules://{id}", name="rule", description="One rule by its id.", mime_type="application/json"
    )
    def rule(id: str) -> str:
        served = service.rulebook.served.get(id)
        if served is None:
            raise ResourceNotFoundError(f"the rulebook has no rule {id[:64]!r}")
        return RuleView.of(served).model_dump_json()

    @server.prompt(
        name=PROMPT, description="System text that tells a model when to consult the safety rules."
    )
    def system_text() -> str:
        return guidance(service.rulebook)

    @server.prompt(name=HINT_PROMPT, description="One line about the safety rules near a request.")
    def hint(request: str) -> str:
        raise NotImplementedError("RuleServer answers this prompt")

    return server


def http_endpoint(handle: ASGIApp, service: RuleService) -> ASGIApp:
    """Wraps the SDK's handler, which minds the case of media types and answers a batch with a long report.

    While the service starts, a call that names its method in a header gets a 503, so that its client waits
    and calls again. A tool's error would reach the model, which cannot wait.

    The body must arrive in one message, as the middleware passes it.
    """

    async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
        if not service.ready and (METHOD_HEADER, b"tools/call") in scope["headers"]:
            busy = error_response(503, "the service is starting: try again", {"Retry-After": "1"})
            await busy(scope, receive, send)
            return
        message: Message | None = await receive()
        body = message.get("body", b"") if message is not None else b""
        if body.lstrip()[:1] == b"[":
            error = {"code": INVALID_REQUEST, "message": BATCH_ERROR}
            response = Response(json.dumps({"jsonrpc": "2.0", "id": None, "error": error}), 400)
            response.headers["content-type"] = "application/json"
            await response(scope, receive, send)
            return
        headers = [
            (name, value.lower() if name == b"content-type" else value) for name, value in scope["headers"]
        ]

        async def receive_again() -> Message:
            nonlocal message
            first, message = message, None
            return first if first is not None else await receive()

        await handle({**scope, "headers": headers}, receive_again, send)

    return endpoint


def compact_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Removes titles and descriptions that only people need: they cost every model with the tool tokens."""
    return json.loads(json.dumps(schema), object_hook=_compact_object)  # type: ignore[no-any-return]


def _compact_object(value: dict[str, Any]) -> dict[str, Any]:
    # A property may be named `title`; the annotation is the one whose value is a string.
    short = {key: inner for key, inner in value.items() if not (key == "title" and isinstance(inner, str))}
    if short.get("type") == "object":
        short.pop("description", None)
    if short.get("default", ...) is None:
        del short["default"]
    return short
