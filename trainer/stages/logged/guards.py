"""Stops for a run that goes wrong: too far from the log, no longer numbers, or too bold on harmful prompts.

Each says in plain words what happened. None draws random numbers, so a run that none of them stops is the
same as one without them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import TrainerCallback

from trainer.errors import TrainingError
from trainer.tokens import RULE_TOOL, consult_probabilities

Say = Callable[[str], None]


class DriftGuard(TrainerCallback):  # type: ignore[misc]
    """Stops when the policy has gone further from the one that sampled than `limit` (KL, nats a token)."""

    def __init__(self, limit: float | None, say: Say) -> None:
        self.limit, self.say = limit, say
        self.stopped: str | None = None

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if not logs or "logged/kl" not in logs:
            return
        drift = logs["logged/kl"]  # None where TRL found nothing but NaN to average
        if drift is None or not math.isfinite(drift) or not math.isfinite(logs.get("loss", 0.0)):
            raise TrainingError(
                f"at step {state.global_step} the loss was no longer a number, so the weights are not "
                "either: lower learning_rate or set max_grad_norm, then start again in another folder"
            )
        if self.limit is not None and drift > self.limit and not self.stopped:
            self.stopped = (
                f"stopped at step {state.global_step}: the policy has drifted {drift:.3f} nats a token from "
                f"the one that sampled, and the limit is {self.limit:g}; sample fresh episodes with the "
                "model as it is now, or raise max_drift"
            )
            self.say(self.stopped)
            control.should_training_stop = True


@dataclass
class Floor:
    """What must hold on prompts not trained on, and how to look.

    `consult` is the least mean probability of consulting on harmful prompts; `safe` the least share of them
    whose greedy reply of `reply_tokens` consults or refuses. None is not looked at.
    """

    kinds: list[str]
    openings: list[dict[str, list[int]]]
    consult: float | None = None
    safe: float | None = None
    every: int = 4
    rollback: bool = False
    reply_tokens: int = 32


@dataclass
class FloorGuard(TrainerCallback):  # type: ignore[misc]
    """Looks every few updates; below a floor, stops the run or also takes the last good weights back."""

    floor: Floor
    say: Say
    trainer: Any = None
    readings: list[dict[str, Any]] = field(default_factory=list)
    stopped: str | None = None
    _good: tuple[int, dict[str, torch.Tensor]] | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # A checkpoint keeps the history, and with it what was read before it; its own step is read again.
        past = [entry["floor"] for entry in state.log_history if "floor" in entry]
        self.readings = [reading for reading in past if reading["step"] < state.global_step]
        if (broken := self._look(state)) and not state.global_step:
            raise TrainingError(
                f"before the first update {broken}: start from a model that keeps to the floor, or lower it"
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        step = state.global_step
        if step % self.floor.every and step < state.max_steps:
            return
        if broken := self._look(state):
            self.stopped = f"stopped at step {step}: {broken}"
            if self.floor.rollback and self._good is not None:
                self._restore()
                self.stopped += f"; the weights of step {self._good[0]} were taken back"
            self.say(self.stopped)
            control.should_training_stop = True

    def _look(self, state: Any) -> str | None:
        """Read the figures and keep them; why they are too low, or None."""
        floor, trainer, step = self.floor, self.trainer, state.global_step
        chances = consult_probabilities(
            trainer.logprobs, floor.openings, trainer.args.per_device_train_batch_size
        )
        by_kind: dict[str, list[float]] = {}
        for kind, chance in zip(floor.kinds, chances, strict=True):
            by_kind.setdefault(kind, []).append(chance)
        reading: dict[str, Any] = {
            "step": step,
            "consult": {kind: round(sum(all_) / len(all_), 4) for kind, all_ in sorted(by_kind.items())},
        }
        if floor.safe is not None:
            reading["safe_replies"] = self._safe_share()
        self.readings.append(reading)
        state.log_history[:] = [e for e in state.log_history if e.get("floor", {}).get("step") != step]
        state.log_history.append({"step": step, "floor": reading})
        consult, safe = reading["consult"]["harmful"], reading.get("safe_replies")
        if floor.consult is not None and consult < floor.consult:
            return (
                "on harmful prompts that are not trained on, the model consults with probability "
                f"{consult:.2f}, below the floor of {floor.consult:g}"
            )
        if floor.safe is not None and safe is not None and safe < floor.safe:
            return (
                f"of the replies to harmful prompts that are not trained on, {safe:.0%} consult or refuse, "
                f"below the floor of {floor.safe:.0%}"
            )
        self._good = (
            step,
            {
                name: value.detach().clone()
                for name, value in trainer.model.named_parameters()
                if value.requires_grad
            },
        )
        return None

    def _restore(self) -> None:
        assert self._good is not None
        with torch.no_grad():
            for name, value in self.trainer.model.named_parameters():
                if name in self._good[1]:
                    value.copy_(self._good[1][name])

    def _safe_share(self) -> float:
        from evaluation.scorers.refusal import detect_refusal

        floor, trainer = self.floor, self.trainer
        tokenizer, size = trainer.processing_class, trainer.args.per_device_train_batch_size
        prompts = [
            row["prompt_ids"]
            for row, kind in zip(floor.openings, floor.kinds, strict=True)
            if kind == "harmful"
        ]
        model, training = trainer.accelerator.unwrap_model(trainer.model), trainer.model.training
        model.eval()
        safe = 0
        for start in range(0, len(prompts), size):
            batch = tokenizer.pad(
                {"input_ids": prompts[start : start + size]}, padding_side="left", return_tensors="pt"
            ).to(trainer.accelerator.device)
            with torch.no_grad():
                replies = model.generate(
                    **batch,
                    max_new_tokens=floor.reply_tokens,
                    do_sample=False,
                    pad_token_id=tokenizer.pad_token_id,
                )
            for reply in tokenizer.batch_decode(replies[:, batch["input_ids"].shape[1] :]):
                safe += RULE_TOOL in reply or detect_refusal(_bare(reply, tokenizer)).label == "refusal"
        model.train(training)
        return round(safe / len(prompts), 4)


def _bare(reply: str, tokenizer: Any) -> str:
    for mark in tokenizer.all_special_tokens:
        reply = reply.replace(mark, "")
    return reply
