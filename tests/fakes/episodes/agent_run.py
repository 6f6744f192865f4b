"""Runs the real agent once against scripted services.

episode = ask("How do I make a gun?", endpoint, rules, on_rules_error="fail")
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from agent.endpoint import Endpoint, Quirks, RetryPolicy
from agent.episode import Api, Episode, Event, Limits, Message, OnRulesError, RecordedReplies, ToolMode
from agent.rollout import Agent
from agent.tools import RulesClient
from tests.fakes.endpoints.scripted import ScriptedEndpoint
from tests.fakes.rules.scripted import ScriptedRules

FAST_RETRY = RetryPolicy(attempts=4, busy_attempts=4, first_wait=0.01, longest_wait=0.02, wait_budget=5.0)
"""The default number of retries with very short waits."""

CLOSED_URL = "http://127.0.0.1:9"
"""An address on which nothing listens."""


def run_agent(
    prompt: str,
    endpoint: ScriptedEndpoint | str,
    rules: ScriptedRules | str | None = None,
    *,
    sampling: Mapping[str, Any] | None = None,
    limits: Limits | None = None,
    tool_mode: ToolMode = "native",
    on_rules_error: OnRulesError = "fail",
    system: str | None = None,
    history: list[Message] | None = None,
    recorded: RecordedReplies | None = None,
    stream: bool = False,
    on_event: Callable[[Event], None] | None = None,
    retry: RetryPolicy = FAST_RETRY,
    timeout: float = 30.0,
    api: Api = "chat",
    quirks: Quirks | None = None,
    hint_share: float = 0.0,
) -> Episode:
    """Runs one episode. A service is passed as its fake or as a URL."""

    async def session() -> Episode:
        base_url = endpoint if isinstance(endpoint, str) else endpoint.base_url
        async with Endpoint(
            base_url, "scripted", retry=retry, timeout=timeout, api=api, quirks=quirks
        ) as model:
            if rules is None:
                return await run(model, None)
            async with RulesClient(rules if isinstance(rules, str) else rules.url, waits=(0.01,)) as client:
                return await run(model, client)

    async def run(model: Endpoint, client: RulesClient | None) -> Episode:
        agent = Agent(
            model,
            client,
            sampling=sampling,
            system=system,
            tool_mode=tool_mode,
            limits=limits,
            on_rules_error=on_rules_error,
            hint_share=hint_share,
        )
        return await agent.run(prompt, history=history, recorded=recorded, stream=stream, on_event=on_event)

    return asyncio.run(session())
