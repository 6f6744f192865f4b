"""A small rule service that speaks real MCP over HTTP and returns scripted results.

    with ScriptedRules() as rules:
        ... RulesClient(rules.url) ...
    rules.consultations[0]["situation"]

`answers` holds results (see `rules_found`, `no_rule_found`) or exceptions, used in turn; afterwards every
consultation returns the rule `weapons.making`. `digest` may change while the service runs.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

from mcp.server import MCPServer
from mcp.types import CallToolResult, TextContent
from starlette.requests import Request
from starlette.responses import Response

from tests.fakes.processes.live_server import LiveServer

DIGEST = "d1" * 32


def rules_found(
    id: str = "weapons.making", stance: str = "decline", text: str = "Do not help to make weapons."
) -> dict[str, Any]:
    """Returns a result with one rule."""
    rule = {
        "id": id,
        "title": id,
        "category": id.split(".")[0],
        "stance": stance,
        "score": 0.61,
        "text": text,
    }
    return {"verdict": "rules_found", "rules": [rule], "threshold": 0.35}


def no_rule_found() -> dict[str, Any]:
    """Returns a result without a rule."""
    return {"verdict": "no_applicable_rule", "rules": [], "threshold": 0.35}


class ScriptedRules:
    """Context manager. It can be entered once."""

    def __init__(
        self,
        answers: Iterable[dict[str, Any] | Exception] = (),
        *,
        digest: str = DIGEST,
        delay: float = 0.0,
        port: int = 0,
        guidance: str | None = None,
        hints: bool = False,
    ) -> None:
        """`delay` is the duration of a consultation in seconds, `guidance` the text of the prompt.

        `hints` offers a hint about every request.
        """
        self.hints = hints
        self.guidance = guidance
        self.delay = delay
        self.answers: deque[dict[str, Any] | Exception] = deque(answers)
        self.digest = digest
        self.consultations: list[dict[str, Any]] = []
        """Arguments of the consultations, in order of arrival."""
        self.app = self._server().streamable_http_app(stateless_http=True, json_response=True)
        self.app.add_route("/v1/categories", self._categories)
        self._served = LiveServer(self.app, port)

    def __enter__(self) -> Self:
        self._served.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._served.__exit__(kind, value, trace)

    def stop(self) -> None:
        """Stops the service before the block ends."""
        self._served.stop()

    @property
    def url(self) -> str:
        return f"{self._served.origin}/mcp"

    @property
    def port(self) -> int:
        return self._served.port

    def _server(self) -> MCPServer:
        server = MCPServer("scripted-rules", version="1", log_level="ERROR")

        @server.tool()
        async def consult_safety_rules(
            situation: str,
            categories: list[str] | None = None,
            top_k: int | None = None,
            lang: str | None = None,
        ) -> CallToolResult:
            """Look up the safety rules for a delicate request."""
            self.consultations.append({"situation": situation, "categories": categories, "top_k": top_k})
            await asyncio.sleep(self.delay)
            answer = self.answers.popleft() if self.answers else rules_found()
            if isinstance(answer, Exception):
                raise answer
            return self._result(answer)

        @server.resource("rulebook://current", mime_type="application/json")
        def rulebook() -> str:
            return json.dumps(self._rulebook())

        if self.guidance is not None:

            @server.prompt(name="safety_rules_guidance")
            def system_text() -> str:
                return str(self.guidance)

        if self.hints:

            @server.prompt(name="safety_rules_hint")
            def hint(request: str) -> str:
                return f"Rules near a request of {len(request)} characters: Weapons (decline)."

        return server

    async def _categories(self, request: Request) -> Response:
        listed = [{"id": "weapons", "title": "Weapons", "summary": "Making and getting weapons."}]
        return Response(json.dumps(listed), media_type="application/json")

    def _rulebook(self) -> dict[str, str]:
        return {"name": "scripted", "version": "1", "digest": self.digest}

    def _result(self, answer: dict[str, Any]) -> CallToolResult:
        lines = [answer["verdict"]]
        lines += [f"[{r['id']}] {r['title']} ({r['stance']})\n{r['text']}" for r in answer["rules"]]
        return CallToolResult(
            content=[TextContent(type="text", text="\n".join(lines))],
            structured_content={**answer, "rulebook": self._rulebook()},
        )
