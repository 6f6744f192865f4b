"""The stage `online`: on-policy IFPO through TRL's tool loop and a running rule service.

Outputs as of every stage: `adapter/`, `merged/` and `run.json`, written last. Sampling is TRL's: by the model
itself, or by vLLM, colocated or served (`use_vllm`, `vllm_mode`).
"""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from trainer.errors import TrainingError
from trainer.stages import checkpoints as resuming
from trainer.stages import model_io as adapter
from trainer.stages.progress import Notify, make_notifier, silence_libraries, step_reporter
from trainer.stages.run_record import mask_secrets

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainer.stages.online.config import OnlineArguments, OnlineConfig
    from trainer.stages.online.rule_tool import BatchedRuleTool

RECORDED_PREFIXES = ("ifpo/", "clip_ratio/", "completions/", "tools/", "sampling/")
RECORDED_METRICS = ("loss", "reward", "reward_std", "entropy", "kl", "grad_norm", "learning_rate")


TELL = make_notifier("online")


def run_online(arguments: OnlineArguments, config: OnlineConfig, tell: Notify = TELL) -> dict[str, Any]:
    """Train, save, and return what `run.json` holds. Of several processes, the first tells and saves.

    Raises:
        TrainingError: the model cannot be loaded, or nothing can be learnt from the prompts.
        agent.RulesError: the rule service cannot be asked.
        PromptError: the prompts cannot be read.
    """
    from trainer.stages.online.rule_tool import BatchedRuleTool

    token = os.environ.get("ASCL_RULES_TOKEN")
    with (
        silence_libraries(),
        BatchedRuleTool(arguments.rules, token, most=arguments.rules_concurrency) as desk,
    ):
        return _run(arguments, config, desk, tell)


def _run(
    arguments: OnlineArguments, config: OnlineConfig, desk: BatchedRuleTool, tell: Notify
) -> dict[str, Any]:
    from pathlib import Path

    import torch

    from trainer.stages.model_io import load_tokenizer, save_stage
    from trainer.stages.online.floor import OnlineFloor

    started = time.perf_counter()
    first = config.process_index == 0
    say: Notify = tell if first else lambda line: None
    out = Path(config.output_dir)
    plan = {**mask_secrets(asdict(arguments)), **_training(config), "rulebook_digest": desk.digest}
    plan = {name: value for name, value in plan.items() if name not in ("resume", "output_dir")}
    with config.main_process_first(local=False, desc="plan"):
        checkpoint = resuming.begin_or_resume(out, plan, arguments.resume, first)
    train, held = prompt_rows(arguments.prompts), None
    if arguments.floor_prompts is not None:
        held = prompt_rows(arguments.floor_prompts, without={row["prompt"][-1]["content"] for row in train})
        if arguments.floor_consult is not None and not any(row["kind"] == "harmful" for row in held):
            raise TrainingError(
                f"{arguments.floor_prompts} holds no harmful prompt that the run does not train on, so no "
                "floor can be kept: name other prompts"
            )
        if arguments.floor_consult is not None:
            config.eval_on_start = True  # so that there are good weights to take back, also in a resumed run
    tokenizer = load_tokenizer(arguments.model)
    trainer, reward = _trainer(arguments, config, tokenizer, train, held, desk, say)
    floor = OnlineFloor(arguments.floor_consult, trainer, say)
    trainer.add_callback(floor)
    say(f"{len(train)} prompts, {config.num_generations} episodes each, rulebook {desk.digest[:12]}")
    with step_reporter(say, _figures, shown=first) as reporter:
        trainer.add_callback(reporter)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    counted = torch.tensor([reward.unjudged, desk.failures], device=trainer.accelerator.device)
    unrewarded, unavailable = trainer.accelerator.reduce(counted).tolist()
    run = {
        "stage": "online",
        "method": arguments.method,
        "arguments": mask_secrets(asdict(arguments)),
        "training": _training(config),
        "data": {
            "prompts": len(train),
            "prompts_sha256": _digest(arguments.prompts),
            "rulebook_digests": [desk.digest],
            "unrewarded": unrewarded,
            "rules_unavailable": unavailable,
            "consultations_at_once": desk.in_flight_most,  # of one process
        },
        "stopped": floor.stopped,
        "steps": _steps(trainer.state.log_history),
        "seconds": round(time.perf_counter() - started, 1),
    }
    if first:
        resuming.forget_record(out)
    save_stage(out, trainer, tokenizer, arguments.model)
    if first:
        adapter.save_record(out, run)
    trainer.accelerator.wait_for_everyone()
    return run


def prompt_rows(spec: str, without: set[str] = frozenset()) -> list[dict[str, Any]]:  # type: ignore[assignment]
    """Prompts as the agent asks them: its system text, then the user's message.

    Raises:
        PromptError: they cannot be read.
        TrainingError: none is left.
    """
    from agent.rollout.system_prompt import system_prompt
    from evaluation.prompts import load_prompts

    system = system_prompt()
    rows = [
        {
            "prompt": [{"role": "system", "content": system}, {"role": "user", "content": prompt.prompt}],
            "kind": prompt.kind,
            "prompt_id": prompt.id,
            "answer": prompt.answer,
        }
        for prompt in load_prompts(spec)
        if prompt.prompt not in without
    ]
    if not rows:
        raise TrainingError(f"{spec} holds only prompts that are trained on: name others as floor_prompts")
    return rows


def _trainer(
    arguments: OnlineArguments,
    config: OnlineConfig,
    tokenizer: Any,
    train: list[dict[str, Any]],
    held: list[dict[str, Any]] | None,
    desk: BatchedRuleTool,
    say: Notify,
) -> tuple[Any, Any]:
    import datasets
    import transformers

    from evaluation.scorers import Weights
    from trainer.stages.model_io import weights_digest
    from trainer.stages.online.reward import JudgeEndpoint, OnlineReward
    from trainer.stages.online.trainer import OnlineIFPOTrainer

    judge = None
    if arguments.judge is not None:
        judge = JudgeEndpoint(arguments.judge, str(arguments.judge_url), str(arguments.judge_model))
    reward = OnlineReward(
        Weights(outcome=arguments.outcome_weight, format_penalty=arguments.format_penalty),
        frozenset({tokenizer.eos_token_id}),
        judge,
        say,
    )
    config.model_init_kwargs = {"dtype": "float32"} | (config.model_init_kwargs or {})
    with weights_digest(arguments.model):
        trainer = OnlineIFPOTrainer(
            model=arguments.model,
            args=config,
            reward_funcs=reward,
            train_dataset=datasets.Dataset.from_list(train),
            eval_dataset=datasets.Dataset.from_list(held) if held else None,
            processing_class=tokenizer,
            peft_config=adapter.add_adapter(arguments.model, arguments.lora_rank, arguments.lora_layers),
            desk=desk,
        )
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer, reward


def _figures(logs: Mapping[str, float]) -> str:
    rates = ", ".join(
        f"{name.rpartition('/')[2]} {value:.0%}"
        for name, value in sorted(logs.items())
        if name.startswith("ifpo/consult_rate/")
    )
    return (
        f"reward {logs.get('reward', 0):.3f}, consult rate {rates}, "
        f"groups of one mode {logs.get('ifpo/one_mode_groups', 0):.0%}"
    )


def _training(config: OnlineConfig) -> dict[str, Any]:
    """The settings that differ from the defaults, and those that everyone asks for."""
    from trainer.stages.online.config import OnlineConfig as Config

    always = ("learning_rate", "loss_type", "beta", "epsilon", "num_generations", "temperature", "seed")
    standard = asdict(Config(output_dir=config.output_dir))
    return {
        name: value
        for name, value in config.to_dict().items()
        if name in always or (name in standard and value != standard[name] and name != "logging_dir")
    }


def _steps(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "step": entry["step"],
            **{
                name: value
                for name, value in entry.items()
                if name in RECORDED_METRICS or name.startswith(RECORDED_PREFIXES)
            },
        }
        for entry in history
        if "loss" in entry
    ]


def _digest(spec: str) -> str:
    import hashlib

    from evaluation.prompts import prompt_file

    return hashlib.sha256(prompt_file(spec).read_bytes()).hexdigest()
