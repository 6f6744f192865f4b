"""Run prompts through the agent into an episode log, for evaluation."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.episode import OnRulesError, ToolMode

if TYPE_CHECKING:
    from agent.run import RunSummary


@dataclass(frozen=True)
class Policy:
    """The model to evaluate, where its rules are, and how it is sampled; `rules` None offers no tool."""

    base_url: str
    model: str
    rules: str | None
    policy_version: str = "base"
    tool_mode: ToolMode = "native"
    on_rules_error: OnRulesError = "fail"
    max_turns: int = 6
    sampling: dict[str, Any] = field(default_factory=dict)


async def sample(
    policy: Policy, prompts: Path, log: Path, *, samples: int, concurrency: int, trace: bool = False
) -> RunSummary:
    """Sample every prompt into a log, going on where an interrupted run stopped.

    Raises:
        AgentError: when the prompts, the log, the endpoint or the rule service cannot be used.
    """
    from agent.endpoint import Endpoint
    from agent.episode import Limits
    from agent.loop import Agent
    from agent.prompt_file import read_prompts
    from agent.rules_client import RulesClient
    from agent.run import run_prompts
    from agent.show import ProgressView

    wanted = read_prompts(prompts)
    endpoint = Endpoint(policy.base_url, policy.model, api_key=os.environ.get("OPENAI_API_KEY"))

    async def run(rules: RulesClient | None) -> RunSummary:
        agent = Agent(
            endpoint,
            rules,
            sampling=policy.sampling,
            tool_mode=policy.tool_mode,
            limits=Limits(turns=policy.max_turns),
            on_rules_error=policy.on_rules_error,
            policy_version=policy.policy_version,
        )
        with ProgressView(trace=trace) as view:
            return await run_prompts(
                agent, wanted, log, samples=samples, concurrency=concurrency, on_progress=view.update
            )

    async with endpoint:
        if policy.rules is None:
            return await run(None)
        async with RulesClient(policy.rules, os.environ.get("ASCL_RULES_TOKEN")) as rules:
            return await run(rules)
