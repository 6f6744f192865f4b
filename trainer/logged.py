"""The stage `logged`: train an adapter on logged episodes with the advantages that `prepare` stored.

Outputs: `adapter/` (PEFT), `merged/` (a plain model folder to serve) and `run.json` (settings, versions, what
was left out, figures of every step), written last: where it stands, the rest is whole.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer import adapter
from trainer.errors import TrainingError
from trainer.groups import read_groups
from trainer.quiet import quiet_libraries
from trainer.tokens import TokenError, episode_tokens

if TYPE_CHECKING:
    from trainer.config import LoggedArguments, LoggedConfig

KEPT_FIGURES = ("loss", "reward", "entropy", "logged/kl", "logged/largest_ratio", "clip_ratio/region_mean")

Progress = Callable[[str], None]


def tell(line: str) -> None:
    """One line on stderr, so that stdout stays pipeable."""
    print(f"logged: {line}", file=sys.stderr, flush=True)


def run_logged(arguments: LoggedArguments, config: LoggedConfig, progress: Progress = tell) -> dict[str, Any]:
    """Train, save, and return what `run.json` holds.

    Raises:
        TrainingError: the model cannot be loaded, or no episode can be learnt from.
        GroupError: the file of groups cannot be read.
    """
    with quiet_libraries():
        return _run(arguments, config, progress)


def _run(arguments: LoggedArguments, config: LoggedConfig, progress: Progress) -> dict[str, Any]:
    started = time.perf_counter()
    columns, about = read_groups(Path(arguments.groups))
    config.temperature = _one_temperature(columns["temperature"])
    left_out: Counter[str] = Counter()
    tokenizer = load_tokenizer(arguments.model)
    rows = _rows(tokenizer, columns, arguments, left_out)
    if not rows:
        causes = ", ".join(f"{cause}: {count}" for cause, count in sorted(left_out.items()))
        raise TrainingError(f"no episode in {arguments.groups} can be learnt from ({causes})")
    text_only = sum(row["logprobs"] is None for row in rows)
    trainer = _trainer(arguments, config, tokenizer, rows, progress)
    wrote = sum(sum(row["wrote"]) for row in rows)
    unused = ", ".join(f"{cause}: {count}" for cause, count in sorted(left_out.items())) or "none"
    progress(f"learning from {len(rows)} episodes, {wrote} tokens of the policy; left out: {unused}")
    trainer.train()
    out = Path(config.output_dir)
    adapter.save(out, trainer.model, tokenizer)
    run = {
        "stage": "logged",
        "method": arguments.method,
        "arguments": asdict(arguments),
        "advantages": about["settings"],
        "training": _training(config),
        "data": {
            "groups_sha256": hashlib.sha256(Path(arguments.groups).read_bytes()).hexdigest(),
            "policy_versions": sorted(set(columns["policy_version"])),
            "episodes": len(rows),
            "left_out": dict(sorted(left_out.items())),
        },
        "off_policy": {
            "text_only_episodes": text_only,
            "behaviour_logprobs": "recomputed with the starting checkpoint" if text_only else "logged",
        },
        "versions": adapter.versions(),
        "steps": [
            {"step": entry["step"], **{name: entry[name] for name in KEPT_FIGURES if name in entry}}
            for entry in trainer.state.log_history
            if "loss" in entry
        ],
        "seconds": round(time.perf_counter() - started, 1),
    }
    adapter.save_record(out, run)
    return run


def _one_temperature(given: list[float | None]) -> float:
    """The trainer divides logits by it, as the sampler did; where none was sent, endpoints use 1."""
    temperatures = sorted({1.0 if value is None else value for value in given})
    if len(temperatures) > 1:
        raise TrainingError(
            f"the episodes were sampled at the temperatures {', '.join(map(str, temperatures))}, but a run "
            "has one: prepare a log of one temperature"
        )
    if temperatures[0] == 0:
        raise TrainingError(
            "the episodes were sampled at temperature 0, so there are no probabilities to learn"
        )
    return temperatures[0]


def load_tokenizer(model: str) -> Any:
    from transformers import AutoTokenizer

    if Path(model).is_dir() and not (Path(model) / "config.json").is_file():
        raise TrainingError(f"'{model}' is not a model folder (it has no config.json)")
    try:
        return AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise TrainingError(
            f"the model '{model}' cannot be loaded ({first}): pass the folder of the checkpoint that sampled"
        ) from None


def _rows(
    tokenizer: Any, columns: dict[str, list[Any]], arguments: LoggedArguments, left_out: Counter[str]
) -> list[dict[str, Any]]:
    rows = []
    for messages, tools, turns, reward, advantage in zip(
        *(
            columns[name]
            for name in ("messages", "tools", "turns", "reward", f"advantage_{arguments.method}")
        ),
        strict=True,
    ):
        if advantage == 0:
            left_out["no advantage"] += 1
            continue
        try:
            tokens = episode_tokens(tokenizer, json.loads(messages), json.loads(tools), json.loads(turns))
        except TokenError as cause:
            left_out[str(cause)] += 1
            continue
        if tokens.length > arguments.max_length:
            left_out[f"longer than {arguments.max_length} tokens"] += 1
            continue
        rows.append(
            {
                "prompt": tokenizer.decode(tokens.prompt_ids),
                "completion": tokenizer.decode(tokens.completion_ids),
                "prompt_ids": tokens.prompt_ids,
                "completion_ids": tokens.completion_ids,
                "wrote": tokens.wrote,
                "logprobs": tokens.logprobs,
                "reward": reward,
                "advantage": advantage,
            }
        )
    return rows


def _trainer(
    arguments: LoggedArguments,
    config: LoggedConfig,
    tokenizer: Any,
    rows: list[dict[str, Any]],
    progress: Progress,
) -> Any:
    import datasets
    import transformers

    from trainer.behaviour import with_behaviour_logprobs
    from trainer.grpo import LoggedIFPOTrainer

    dataset = datasets.Dataset.from_list(_whole_batches(rows, config.generation_batch_size))
    config.model_init_kwargs = {"dtype": "float32"} | (config.model_init_kwargs or {})
    trainer = LoggedIFPOTrainer(
        model=arguments.model,
        args=config,
        train_dataset=dataset,
        processing_class=tokenizer,
        peft_config=adapter.top_layers(arguments.model, arguments.lora_rank, arguments.lora_layers),
        callbacks=[_reporter(progress)],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    if any(row["logprobs"] is None for row in rows):
        progress("the log has no log-probabilities: computing them with the starting checkpoint")
        trainer.train_dataset = with_behaviour_logprobs(trainer, dataset)
    return trainer


def _whole_batches(rows: list[dict[str, Any]], size: int) -> list[dict[str, Any]]:
    """Fill the last batch up with rows that carry neither loss nor advantage: TRL drops a batch that is not
    whole, and with it episodes."""
    shortest = min(rows, key=lambda row: len(row["prompt_ids"]) + len(row["completion_ids"]))
    silent = {**shortest, "wrote": [0] * len(shortest["wrote"]), "advantage": 0.0}
    return rows + [silent] * (-len(rows) % size)


def _reporter(progress: Progress) -> Any:
    from transformers import TrainerCallback

    class Reporter(TrainerCallback):  # type: ignore[misc]
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs:
                kl, clipped = logs.get("logged/kl", 0.0), logs.get("clip_ratio/region_mean", 0.0)
                progress(
                    f"step {state.global_step}/{state.max_steps}, KL to the start {kl:.4f}, "
                    f"clipped {clipped:.1%}"
                )

    return Reporter()


def _training(config: LoggedConfig) -> dict[str, Any]:
    """The settings that differ from the defaults, and those that everyone asks for."""
    from trainer.config import LoggedConfig as Config

    always = ("learning_rate", "loss_type", "beta", "epsilon", "num_train_epochs", "temperature", "seed")
    standard = asdict(Config(output_dir=config.output_dir))
    return {
        name: value
        for name, value in config.to_dict().items()
        if name in always or (name in standard and value != standard[name] and name != "logging_dir")
    }
