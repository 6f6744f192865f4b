"""Stage `online`: on-policy IFPO through TRL's tool loop and a running rule service.

Outputs are those of every stage: `adapter/` (unless all weights were trained), `merged/`, and `run.json`,
written last. TRL samples with the model itself, or with vLLM, colocated or as a server (`use_vllm`,
`vllm_mode`).
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.errors import TrainingError
from trainer.models.template_check import template_problem
from trainer.stages.checkpoints import begin_or_resume_together
from trainer.stages.model_io import build_trainer, load_tokenizer, precision_warning, save_results
from trainer.stages.monitoring import (
    Notify,
    SafetyFloor,
    held_out_problem,
    make_notifier,
    notify_from_rank_zero,
    silence_libraries,
    step_reporter,
)
from trainer.stages.run_record import changed_settings, mask_secrets

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainer.stages.online.config import OnlineArguments, OnlineConfig
    from trainer.stages.online.reward import OnlineReward
    from trainer.stages.online.rule_tool import BatchedRuleTool

Row = dict[str, Any]
Rows = list[Row]

RECORDED_PREFIXES = ("ifpo/", "clip_ratio/", "completions/", "tools/", "sampling/")
RECORDED_METRICS = ("loss", "reward", "reward_std", "entropy", "kl", "grad_norm", "learning_rate")
_RECORDED_SETTINGS = (
    *("learning_rate", "loss_type", "beta", "epsilon"),
    *("num_generations", "temperature", "seed"),
)

NOTIFY = make_notifier("online")


def run_online(arguments: OnlineArguments, config: OnlineConfig, notify: Notify = NOTIFY) -> dict[str, Any]:
    """Trains, saves the results, and returns the contents of `run.json`.

    Of several processes, the first one reports and saves.

    Raises:
        TrainingError: the model cannot be loaded, or the prompts cannot be trained on.
        agent.RulesError: the rule service cannot be reached.
        PromptError: the prompts cannot be read.
    """
    from trainer.stages.online.rule_tool import BatchedRuleTool

    token = os.environ.get("ASCL_RULES_TOKEN")
    with (
        silence_libraries(),
        BatchedRuleTool(arguments.rules_url, token, max_in_flight=arguments.rules_concurrency) as rule_tool,
    ):
        return _run(arguments, config, rule_tool, notify_from_rank_zero(notify, config))


def _run(
    arguments: OnlineArguments, config: OnlineConfig, rule_tool: BatchedRuleTool, notify: Notify
) -> dict[str, Any]:
    from trainer.stages.online.floor import OnlineFloor

    started = time.perf_counter()
    recorded_arguments = mask_secrets(asdict(arguments))
    settings = changed_settings(config, _RECORDED_SETTINGS)
    plan = {**recorded_arguments, **settings, "rulebook_digest": rule_tool.digest}
    checkpoint = begin_or_resume_together(config, plan, arguments.resume)
    train = load_prompt_rows(arguments.prompts, guidance=rule_tool.guidance)
    held_out = _load_held_out(arguments, train, rule_tool.guidance)
    # Evaluating first gives the floor good weights to restore, in a resumed run too.
    config.eval_on_start |= arguments.floor_consult is not None
    tokenizer = load_tokenizer(arguments.model)
    if problem := precision_warning(arguments, config):
        notify(problem)
    if problem := template_problem(tokenizer):
        raise TrainingError(f"{arguments.model} cannot be trained to consult: {problem}")
    trainer, reward = _build_trainer(arguments, config, tokenizer, train, held_out, rule_tool, notify)
    floor = OnlineFloor(SafetyFloor(arguments.floor_consult), trainer, notify)
    trainer.add_callback(floor)
    notify(f"{len(train)} prompts, {config.num_generations} episodes each, rulebook {rule_tool.digest[:12]}")
    with step_reporter(notify, _format_metrics, enabled=config.process_index == 0) as reporter:
        trainer.add_callback(reporter)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    failures = _count_failures(trainer, reward, rule_tool)
    record = {
        "stage": "online",
        "method": arguments.method,
        "arguments": recorded_arguments,
        "training": changed_settings(config, _RECORDED_SETTINGS),
        "data": {
            "prompts": len(train),
            "prompts_sha256": _sha256(arguments.prompts),
            "rulebook_digests": [rule_tool.digest],
            **failures,
            "consultations_at_once": rule_tool.peak_in_flight,  # of this process
        },
        "stopped": floor.monitor.stopped,
        "steps": _steps(trainer.state.log_history),
        "seconds": round(time.perf_counter() - started, 1),
    }
    save_results(Path(config.output_dir), trainer, tokenizer, arguments.model, record)
    return record


def load_prompt_rows(spec: str, exclude: Sequence[Row] = (), *, guidance: str | None = None) -> Rows:
    """Loads prompts as the agent sends them: its system prompt, the given history and the user's message.

    Args:
        spec: a file or a built-in set.
        exclude: rows whose conversations to leave out.
        guidance: the rule service's text about its rulebook; None for the packaged system prompt.

    Raises:
        PromptError: the prompts cannot be read.
        TrainingError: none is left.
    """
    from agent.rollout.system_prompt import system_prompt
    from evaluation.prompts import load_prompts

    system = {"role": "system", "content": system_prompt(guidance=guidance)}
    excluded = [row["prompt"] for row in exclude]
    rows = [
        {
            "prompt": messages,
            "kind": prompt.kind,
            "prompt_id": prompt.id,
            "answer": prompt.answer,
        }
        for prompt in load_prompts(spec)
        if (messages := [system, *prompt.history, {"role": "user", "content": prompt.prompt}]) not in excluded
    ]
    if not rows:
        raise TrainingError(
            f"{spec} holds only prompts that the run trains on: set floor_prompts to other prompts"
        )
    return rows


def _load_held_out(arguments: OnlineArguments, train: Rows, guidance: str | None) -> Rows | None:
    if arguments.floor_prompts is None:
        return None
    rows = load_prompt_rows(arguments.floor_prompts, exclude=train, guidance=guidance)
    harmful = sum(row["kind"] == "harmful" for row in rows)
    if arguments.floor_consult is not None and (
        problem := held_out_problem(arguments.floor_prompts, harmful)
    ):
        raise TrainingError(problem)
    return rows


def _build_trainer(
    arguments: OnlineArguments,
    config: OnlineConfig,
    tokenizer: Any,
    train: Rows,
    held_out: Rows | None,
    rule_tool: BatchedRuleTool,
    notify: Notify,
) -> tuple[Any, OnlineReward]:
    import datasets

    from evaluation.scorers import Weights
    from trainer.stages.online.prompted_thoughts import prompted_thoughts
    from trainer.stages.online.reward import JudgeEndpoint, OnlineReward
    from trainer.stages.online.trainer import OnlineIFPOTrainer

    judge = None
    if arguments.judge is not None:
        judge = JudgeEndpoint(arguments.judge, str(arguments.judge_url), str(arguments.judge_model))
    weights = Weights(outcome=arguments.outcome_weight, format_penalty=arguments.format_penalty)
    reward = OnlineReward(weights, frozenset(), judge, notify)
    trainer = build_trainer(
        OnlineIFPOTrainer,
        arguments,
        config,
        tokenizer,
        reward_funcs=reward,
        train_dataset=datasets.Dataset.from_list(train),
        eval_dataset=datasets.Dataset.from_list(held_out) if held_out else None,
        rule_tool=rule_tool,
    )
    reward.end_token_ids = frozenset(trainer.eos_token_ids)
    reward.prompted_thoughts = prompted_thoughts(
        tokenizer, trainer.chat_template, trainer.chat_template_kwargs
    )
    return trainer, reward


def _count_failures(trainer: Any, reward: OnlineReward, rule_tool: BatchedRuleTool) -> dict[str, int]:
    """Counts episodes without a reward and failed consultations over all processes."""
    import torch

    counts = torch.tensor([reward.unjudged, rule_tool.failures], device=trainer.accelerator.device)
    unrewarded, unavailable = trainer.accelerator.reduce(counts).tolist()
    return {"unrewarded": unrewarded, "rules_unavailable": unavailable}


def _format_metrics(logs: Mapping[str, float]) -> str:
    rates = ", ".join(
        f"{name.rpartition('/')[2]} {value:.0%}"
        for name, value in sorted(logs.items())
        if name.startswith("ifpo/consult_rate/")
    )
    return (
        f"reward {logs.get('reward', 0):.3f}, consult rate {rates}, "
        f"groups of one mode {logs.get('ifpo/one_mode_groups', 0):.0%}"
    )


def _steps(log_history: Rows) -> Rows:
    return [
        {
            "step": entry["step"],
            **{
                name: value
                for name, value in entry.items()
                if name in RECORDED_METRICS or name.startswith(RECORDED_PREFIXES)
            },
        }
        for entry in log_history
        if "loss" in entry
    ]


def _sha256(spec: str) -> str:
    from evaluation.prompts import prompt_file

    return hashlib.sha256(prompt_file(spec).read_bytes()).hexdigest()
