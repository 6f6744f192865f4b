"""Run prompts through the agent into an episode log, for evaluation."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.episode import OnRulesError, ToolMode
from evaluation.sampling.arms import ArmKind

if TYPE_CHECKING:
    from agent.rollout import RunSummary


@dataclass(frozen=True)
class Policy:
    """The model to evaluate, where its rules are, how it may use them, and how it is sampled.

    `rules` None offers no tool.
    """

    base_url: str
    model: str
    rules: str | None
    arm: ArmKind = "adaptive"
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
    from agent.rollout import ProgressView, read_prompts, run_prompts
    from agent.tools import RulesClient
    from evaluation.sampling.arms import ALWAYS, make_agent

    wanted = read_prompts(prompts)
    check_same_arm(log, policy.arm)
    endpoint = Endpoint(policy.base_url, policy.model, api_key=os.environ.get("OPENAI_API_KEY"))

    async def run(rules: RulesClient | None) -> RunSummary:
        agent = await make_agent(
            policy.arm,
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
                agent,
                wanted,
                log,
                samples=samples,
                concurrency=concurrency,
                shares=ALWAYS if policy.arm == "always" else None,
                on_progress=view.update,
            )

    async with endpoint:
        if policy.rules is None or policy.arm == "none":
            return await run(None)
        async with RulesClient(policy.rules, os.environ.get("ASCL_RULES_TOKEN")) as rules:
            return await run(rules)


def check_same_arm(log: Path, arm: ArmKind) -> None:
    """Refuse to mix forced and free episodes in one log, which their settings alone do not tell apart.

    Raises:
        LogError: where the log was begun by another arm.
    """
    from agent.episode import iter_log
    from agent.errors import LogError

    first = next(iter_log(log), None) if log.exists() else None
    if first is not None and first.mode_forced != (arm == "always"):
        was = "forced consultations" if first.mode_forced else "free decisions"
        raise LogError(f"{log} was begun with {was}, so it is not of the arm {arm}: use another --log")
