"""Samples prompts through the agent into an episode log."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.episode import History, OnRulesError, ToolMode
from evaluation.errors import ArmError
from evaluation.sampling.arms import ARM_KINDS, ArmKind

if TYPE_CHECKING:
    from agent.rollout import RunSummary


@dataclass(frozen=True)
class Policy:
    """The model to evaluate, its rule service, its arm and its sampling; `rules` None offers no tool."""

    base_url: str
    model: str
    rules: str | None
    arm: ArmKind = "adaptive"
    policy_version: str = "base"
    tool_mode: ToolMode = "native"
    on_rules_error: OnRulesError = "fail"
    max_turns: int = 6
    sampling: dict[str, Any] = field(default_factory=dict)
    history: History = "full"
    """Whether the model receives the earlier messages of a conversation."""
    new_server: bool = False
    """Whether the model's server was just started, and has answered nothing yet."""


@dataclass(frozen=True)
class ArmRun:
    """One arm of a run, and the files that it writes."""

    name: str
    """Name in the report."""
    policy: Policy
    log: Path
    rewards: Path


def plan_arms(policy: Policy, log: Path, arms: Sequence[str] | None, name: str | None) -> list[ArmRun]:
    """Plans the arms of a run; each of several arms writes its own log.

    Args:
        policy: applies to every arm.
        log: the log of a single arm; with several arms, the arm's name is appended to it.
        arms: arms in any order; None or empty for `adaptive` under the name `model`.
        name: name of a single arm; None for its kind.

    Raises:
        ArmError: an unknown arm, one name for several arms, or a log that is a folder.
    """
    if unknown := next((arm for arm in arms or [] if arm not in ARM_KINDS), None):
        raise ArmError(f"--arm '{unknown}' is not an arm: use one of {', '.join(ARM_KINDS)}")
    kinds = [kind for kind in ARM_KINDS if kind in (arms or ["adaptive"])]
    if name and len(kinds) > 1:
        raise ArmError("--name names a single arm, but several are run: omit it")
    name = name or (None if arms else "model")
    if log.name in ("", ".."):
        raise ArmError(f"--log {log} is a folder: name a file in it, such as {log / 'episodes.jsonl'}")
    runs = []
    for kind in kinds:
        path = log if len(kinds) == 1 else log.with_name(f"{log.stem}-{kind}.jsonl")
        if path.is_dir():
            raise ArmError(f"--log {path} is a folder: name a file in it, such as {path / 'episodes.jsonl'}")
        rewards = path.with_name(f"{path.stem}-rewards.jsonl")
        runs.append(ArmRun(name or kind, replace(policy, arm=kind), path, rewards))
    return runs


async def sample(
    policy: Policy, prompts: Path, log: Path, *, samples: int, concurrency: int, trace: bool = False
) -> RunSummary:
    """Samples every prompt into a log; resumes an interrupted run.

    Args:
        policy: the model and its arm.
        prompts: file of prompts.
        log: the episode log; appended to.
        samples: episodes per prompt.
        concurrency: maximum number of concurrent episodes.
        trace: whether to print every episode when it ends.

    Raises:
        AgentError: the prompts, the log, the endpoint or the rule service cannot be used.
    """
    from agent.endpoint import Endpoint
    from agent.episode import Limits
    from agent.rollout import ProgressView, read_prompts, run_prompts
    from agent.tools import RulesClient
    from evaluation.sampling.arms import ALWAYS, make_agent

    rows = read_prompts(prompts)
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
                rows,
                log,
                samples=samples,
                concurrency=concurrency,
                shares=ALWAYS if policy.arm == "always" else None,
                history=policy.history,
                new_server=policy.new_server,
                on_progress=view.update,
            )

    async with endpoint:
        if policy.rules is None or policy.arm == "none":
            return await run(None)
        async with RulesClient(policy.rules, os.environ.get("ASCL_RULES_TOKEN")) as rules:
            return await run(rules)


def check_same_arm(log: Path, arm: ArmKind) -> None:
    """Refuses to mix forced and free episodes in one log; their settings alone do not differ.

    Raises:
        LogError: a different arm started the log.
    """
    from agent.episode import iter_log
    from agent.errors import LogError

    first = next(iter_log(log), None) if log.exists() else None
    if first is not None and first.mode_forced != (arm == "always"):
        decisions = "forced consultations" if first.mode_forced else "free decisions"
        raise LogError(
            f"{log} was started with {decisions}, so it does not belong to the arm {arm}: "
            "use a different --log"
        )
