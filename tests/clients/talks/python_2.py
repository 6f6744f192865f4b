"""Holds the conversation and prints a JSON report: python_2.py http URL | stdio COMMAND ARGUMENT..."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from mcp import Client, MCPError
from mcp.client.stdio import StdioServerParameters, stdio_client

STEPS = json.loads(Path(__file__).with_name("steps.json").read_text(encoding="utf-8"))


async def talk(target: Any) -> dict[str, Any]:
    async with Client(target, mode=os.environ["TALK_MODE"]) as client:  # type: ignore[arg-type]

        async def call(arguments: dict[str, Any]) -> Any:
            result = await client.call_tool(STEPS["tool"], arguments)
            return result.model_dump(mode="json", by_alias=True, exclude_none=True)

        async def text(uri: str) -> Any:
            [content] = (await client.read_resource(uri)).contents
            return json.loads(content.text)  # type: ignore[union-attr]

        report: dict[str, Any] = {
            "protocol": client.protocol_version,
            "tools": [tool.name for tool in (await client.list_tools()).tools],
            **{name: await call(STEPS[name]) for name in ("question", "nulls", "wrong")},
            "resources": [str(each.uri) for each in (await client.list_resources()).resources],
            "templates": [
                each.uri_template for each in (await client.list_resource_templates()).resource_templates
            ],
            "rulebook": await text(STEPS["resource"]),
            "rule": await text(STEPS["rule"]),
            "prompts": [prompt.name for prompt in (await client.list_prompts()).prompts],
            "prompt": (await client.get_prompt(STEPS["prompt"])).messages[0].content.text,  # type: ignore[union-attr]
        }
        try:
            await client.get_prompt("nothing")
        except MCPError as error:
            report["unknown"] = error.error.code
        return report


transport, first, *rest = sys.argv[1:]
server = first if transport == "http" else stdio_client(StdioServerParameters(command=first, args=rest))
print(json.dumps(asyncio.run(talk(server))))
