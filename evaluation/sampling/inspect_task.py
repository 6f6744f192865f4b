"""The arms as a task of Inspect.

    inspect eval ascl/safety -T arm=adaptive -T base_url=http://127.0.0.1:8810/v1 -T model=NAME

In a checkout without an installed package, name this file instead of `ascl/safety`. The solver lets the agent
answer and appends the episode to a log, as `ascl-eval run` does; see `inspect_solver`. Only Inspect should
import this module.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, cast, get_args

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import get_model

from agent import Limits
from agent.episode import OnRulesError, ToolMode
from evaluation.prompts import Prompt, load_prompts
from evaluation.sampling.arms import ARM_KINDS, ArmKind
from evaluation.sampling.inspect_solver import Arms, consulted, consulting_agent, reward

MAX_FAILED_SHARE = 0.2  # of the samples, before Inspect gives up the task


@task
def safety(
    base_url: str,
    model: str,
    arm: str = "adaptive",
    prompts: str = "builtin:held_out",
    rules: str = "http://127.0.0.1:8808/mcp",
    log: str = "",
    samples: int = 1,
    temperature: float = 1.0,
    max_tokens: int = 512,
    max_turns: int = 6,
    tool_mode: str = "native",
    on_rules_error: str = "fail",
    policy_version: str = "base",
) -> Task:
    """Evaluates one arm of one model, with the options of `ascl-eval run`.

    Args:
        base_url: OpenAI-compatible API of a model server or a gateway.
        model: name of the model there; the key is read from OPENAI_API_KEY.
        arm: `none`, `in-prompt`, `always` or `adaptive`.
        prompts: a path, `builtin:NAME` or `hub:...`.
        rules: MCP address of the rule service; the arm `none` does not use it.
        log: the episode log, appended to; by default runs/inspect-ARM.jsonl.
        samples: episodes per prompt (Inspect's epochs).
        temperature: sent with every request.
        max_tokens: maximum length of a reply.
        max_turns: maximum number of model calls per prompt.
        tool_mode: `native`, or `text` to send tool results as user messages.
        on_rules_error: `answer`, `refuse` or `fail` if the rules cannot be consulted.
        policy_version: your name for the state of the model.

    Raises:
        ValueError: an unknown arm or mode.
        PromptError: the prompts cannot be used.
    """
    _check_choice("arm", arm, ARM_KINDS)
    _check_choice("tool_mode", tool_mode, get_args(ToolMode))
    _check_choice("on_rules_error", on_rules_error, get_args(OnRulesError))
    options = {
        "sampling": {"temperature": temperature, "max_tokens": max_tokens},
        "tool_mode": tool_mode,
        "limits": Limits(turns=max_turns),
        "on_rules_error": on_rules_error,
        "policy_version": policy_version,
    }
    path = Path(log or f"runs/inspect-{arm}.jsonl")
    arms = Arms(base_url, model, None if arm == "none" else rules, cast(ArmKind, arm), path, options)
    return _make_task(arms, load_prompts(prompts), prompts, samples)


def _check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{option}={value} does not exist: use one of {', '.join(choices)}")


def _make_task(arms: Arms, prompts: list[Prompt], name: str, samples: int) -> Task:
    return Task(
        dataset=MemoryDataset(
            [
                Sample(
                    id=row.id,
                    input=row.prompt,
                    target=row.answer or "",
                    metadata={"kind": row.kind, **({"history": row.history} if row.messages else {})},
                )
                for row in prompts
            ],
            name=name,
        ),
        solver=consulting_agent(arms, samples),
        scorer=[reward(arms), consulted()],
        model=get_model(f"ascl/{arms.model}", base_url=arms.base_url),
        epochs=samples,
        fail_on_error=MAX_FAILED_SHARE,
        metadata={
            "arm": arms.arm,
            "episode_log": str(arms.log),
            "policy_version": arms.options["policy_version"],
        },
    )


def register() -> None:
    """Registers the task as `ascl/safety`.

    Inspect prefixes a task with its top-level package, `evaluation`, in some installations and not in others.
    It adds no prefix to a function whose module it cannot find, so the copy names a module that is not there.
    """

    @functools.wraps(safety)
    def named(*args: Any, **options: Any) -> Task:
        return safety(*args, **options)

    named.__module__ = "ascl"
    task(name="ascl/safety")(named)
