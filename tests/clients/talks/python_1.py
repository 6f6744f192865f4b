"""Holds the conversation with the first-generation SDK client, which many agent frameworks still use."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from mcp import ClientSession, McpError, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

STEPS = json.loads(Path(__file__).with_name("steps.json").read_text(encoding="utf-8"))


async def talk(streams: Any) -> dict[str, Any]:
    async with streams as (read, write, *_), ClientSession(read, write) as session:
        started = await session.initialize()

        async def call(arguments: dict[str, Any]) -> Any:
            result = await session.call_tool(STEPS["tool"], arguments)
            return result.model_dump(mode="json", by_alias=True, exclude_none=True)

        async def text(uri: Any) -> Any:
            [content] = (await session.read_resource(uri)).contents
            return json.loads(content.text)

        report: dict[str, Any] = {
            "protocol": started.protocolVersion,
            "tools": [tool.name for tool in (await session.list_tools()).tools],
            **{name: await call(STEPS[name]) for name in ("question", "nulls", "wrong")},
            "resources": [str(each.uri) for each in (await session.list_resources()).resources],
            "templates": [
                each.uriTemplate for each in (await session.list_resource_templates()).resourceTemplates
            ],
            "rulebook": await text(STEPS["resource"]),
            "rule": await text(STEPS["rule"]),
            "prompts": [prompt.name for prompt in (await session.list_prompts()).prompts],
            "prompt": (await session.get_prompt(STEPS["prompt"])).messages[0].content.text,
        }
        try:
            await session.get_prompt("nothing")
        except McpError as error:
            report["unknown"] = error.error.code
        return report


transport, first, *rest = sys.argv[1:]
target: Any = (
    streamable_http_client(first)
    if transport == "http"
    else stdio_client(StdioServerParameters(command=first, args=rest))
)
print(json.dumps(asyncio.run(talk(target))))
