"""The arms as a task of Inspect.

    inspect eval evaluation/sampling/inspect_task.py -T arm=adaptive \\
        -T base_url=http://127.0.0.1:8810/v1 -T model=NAME

The solver lets our `Agent` answer and appends the episode to a log, as `ascl-eval run` does; see
`evaluation.inspect_solver`. Nothing but Inspect should import this module.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast, get_args

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import get_model

from agent import Limits
from agent.episode import OnRulesError, ToolMode
from evaluation.prompts import load_prompts
from evaluation.sampling.arms import ARM_KINDS, ArmKind
from evaluation.sampling.inspect_solver import Arms, consulted, consulting_agent, reward

MOST_FAILED = 0.2  # share of samples that may fail before Inspect gives the task up


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
    """One arm of one model; options as those of `ascl-eval run`.

    Args:
        base_url: an OpenAI-compatible API: a model server, a gateway, or one that serves a checkpoint.
        model: its name there; the key is read from OPENAI_API_KEY.
        arm: `none`, `in-prompt`, `always` or `adaptive`.
        prompts: a path, `builtin:NAME` or `hub:...`.
        rules: MCP address of the rule service; not used by the arm `none`.
        log: the episode log, appended to; by default runs/inspect-ARM.jsonl.
        samples: episodes for each prompt, Inspect's epochs.
        temperature: sent with every request, as `max_tokens` is.
        max_tokens: most tokens of one reply.
        max_turns: most model calls for one prompt.
        tool_mode: `text` sends tool results back as a user message.
        on_rules_error: `answer`, `refuse` or `fail` when the rules cannot be consulted.
        policy_version: your name for the state of the model.

    Raises:
        ValueError: for an arm or mode that does not exist.
        PromptError: for prompts that cannot be used.
    """
    for name, value, known in (
        ("arm", arm, ARM_KINDS),
        ("tool_mode", tool_mode, get_args(ToolMode)),
        ("on_rules_error", on_rules_error, get_args(OnRulesError)),
    ):
        if value not in known:
            raise ValueError(f"{name}={value} does not exist: use one of {', '.join(known)}")
    rows = load_prompts(prompts)
    arms = Arms(
        base_url=base_url,
        model=model,
        rules=None if arm == "none" else rules,
        arm=cast(ArmKind, arm),
        log=Path(log or f"runs/inspect-{arm}.jsonl"),
        options={
            "sampling": {"temperature": temperature, "max_tokens": max_tokens},
            "tool_mode": tool_mode,
            "limits": Limits(turns=max_turns),
            "on_rules_error": on_rules_error,
            "policy_version": policy_version,
        },
    )
    return Task(
        dataset=MemoryDataset(
            [
                Sample(id=row.id, input=row.prompt, target=row.answer or "", metadata={"kind": row.kind})
                for row in rows
            ],
            name=prompts,
        ),
        solver=consulting_agent(arms, samples),
        scorer=[reward(), consulted()],
        model=get_model(f"ascl/{model}", base_url=base_url),
        epochs=samples,
        fail_on_error=MOST_FAILED,
        metadata={"arm": arm, "episode_log": str(arms.log), "policy_version": policy_version},
    )
