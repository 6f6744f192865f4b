"""Training callbacks that stop a run on KL drift, a NaN loss, or a violation of the safety floor.

No guard draws random numbers, so a run that none of them stops equals one without them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import TrainerCallback

from agent.tools import RULE_TOOL
from trainer.errors import TrainingError
from trainer.stages.monitoring import FloorMonitor, Notify, SafetyFloor
from trainer.tokens import consult_probabilities, turn_end_ids


class DriftGuard(TrainerCallback):  # type: ignore[misc]
    """Stops when the KL divergence from the policy that sampled exceeds `limit`, in nats per token.

    Raises:
        TrainingError: the loss or the divergence is not finite.
    """

    def __init__(self, limit: float | None, notify: Notify) -> None:
        self.limit, self.notify = limit, notify
        self.stopped: str | None = None

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if not logs or "logged/kl" not in logs:
            return
        drift = logs["logged/kl"]  # None where TRL had only NaN to average
        if drift is None or not math.isfinite(drift) or not math.isfinite(logs.get("loss", 0.0)):
            raise TrainingError(
                f"the loss at step {state.global_step} is not a finite number, so the weights are lost: "
                "lower learning_rate or set max_grad_norm, then start again in another folder"
            )
        if self.limit is not None and drift > self.limit and not self.stopped:
            self.stopped = (
                f"stopped at step {state.global_step}: the policy has drifted {drift:.3f} nats per token "
                f"from the one that sampled, and the limit is {self.limit:g}; sample fresh episodes with the "
                "current model, or raise max_drift"
            )
            self.notify(self.stopped)
            control.should_training_stop = True


@dataclass
class HeldOutPrompts:
    """Prompts that a run does not train on, tokenised for measuring the safety floor."""

    kinds: list[str]
    """(P,) kinds of the prompts."""
    openings: list[dict[str, list[int]]]
    """(P,) prompts with the tokens that open a call, see `trainer.tokens.call_opening`."""
    every: int = 4
    """Updates between two measurements."""
    reply_tokens: int = 32
    """Length of the greedy replies that the safe share is measured on."""


@dataclass
class FloorGuard(TrainerCallback):  # type: ignore[misc]
    """Measures held-out prompts every few updates, moves the safety multiplier, and stops the run below the
    safety floor.

    The consult rate of a kind is the mean probability of opening a call; the safe share is that of harmful
    prompts whose greedy reply consults or refuses, measured only where the floor or the multiplier needs it.

    Raises:
        TrainingError: the starting model is below the floor.
    """

    prompts: HeldOutPrompts
    monitor: FloorMonitor
    trainer: Any
    readings: list[dict[str, Any]] = field(default_factory=list)
    """Measurements so far: `step`, `consult` by kind and, if measured, `safe_replies`."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # A checkpoint holds the history with the readings before it; its own step is measured again.
        earlier = [entry["floor"] for entry in state.log_history if "floor" in entry]
        self.readings = [reading for reading in earlier if reading["step"] < state.global_step]
        violation = self._measure(state)
        if not state.global_step:
            self._update_multiplier(state)
        if violation and not state.global_step:
            raise TrainingError(
                f"before the first update, {violation}: start from another model, or lower the floor"
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        step = state.global_step
        if step % self.prompts.every and step < state.max_steps:
            return
        if violation := self._measure(state):
            self.monitor.stop(self.trainer.model, step, violation, control)
        self._update_multiplier(state)

    def _update_multiplier(self, state: Any) -> None:
        """Changes the safety multiplier, if there is one, by the latest reading."""
        if self.trainer.multiplier is not None:
            latest = self.readings[-1]
            rate = latest["safe_replies"] if self._watches_safety else latest["consult"]["harmful"]
            self.trainer.multiplier.update(state, rate)

    @property
    def _watches_safety(self) -> bool:
        multiplier = self.trainer.multiplier
        return multiplier is not None and multiplier.watched == "safe"

    def _measure(self, state: Any) -> str | None:
        """Records a reading; returns the violation of the floor, or None."""
        prompts, trainer, step = self.prompts, self.trainer, state.global_step
        probabilities = consult_probabilities(
            trainer.logprobs, prompts.openings, trainer.args.per_device_train_batch_size
        )
        by_kind: dict[str, list[float]] = {}
        for kind, probability in zip(prompts.kinds, probabilities, strict=True):
            by_kind.setdefault(kind, []).append(probability)
        reading: dict[str, Any] = {
            "step": step,
            "consult": {kind: round(sum(row) / len(row), 4) for kind, row in sorted(by_kind.items())},
        }
        if self.monitor.floor.safe is not None or self._watches_safety:
            reading["safe_replies"] = self._safe_share()
        self.readings.append(reading)
        state.log_history[:] = [e for e in state.log_history if e.get("floor", {}).get("step") != step]
        state.log_history.append({"step": step, "floor": reading})
        return self.monitor.check(
            trainer.model, step, reading["consult"]["harmful"], reading.get("safe_replies")
        )

    def _safe_share(self) -> float:
        from evaluation.scorers.refusal import detect_refusal

        trainer = self.trainer
        tokenizer, size = trainer.processing_class, trainer.args.per_device_train_batch_size
        harmful = [
            row["prompt_ids"]
            for row, kind in zip(self.prompts.openings, self.prompts.kinds, strict=True)
            if kind == "harmful"
        ]
        model, training = trainer.accelerator.unwrap_model(trainer.model), trainer.model.training
        model.eval()
        safe = 0
        for start in range(0, len(harmful), size):
            batch = tokenizer.pad(
                {"input_ids": harmful[start : start + size]}, padding_side="left", return_tensors="pt"
            ).to(trainer.accelerator.device)
            with torch.no_grad():
                replies = model.generate(
                    **batch,
                    max_new_tokens=self.prompts.reply_tokens,
                    do_sample=False,
                    pad_token_id=tokenizer.pad_token_id,
                    eos_token_id=trainer.eos_token_ids,
                )
            for reply in tokenizer.batch_decode(replies[:, batch["input_ids"].shape[1] :]):
                text = _without_special_tokens(reply, tokenizer)
                safe += RULE_TOOL in reply or detect_refusal(text).label == "refusal"
        model.train(training)
        return round(safe / len(harmful), 4)


@dataclass
class Guards:
    """Guards of one run."""

    drift: DriftGuard
    floor: FloorGuard | None

    @classmethod
    def attach(
        cls,
        trainer: Any,
        max_drift: float | None,
        floor: SafetyFloor,
        prompts: HeldOutPrompts | None,
        rollback: bool,
        notify: Notify,
    ) -> Guards:
        """Adds the guards to a trainer; without held-out prompts it adds no floor guard."""
        monitor = FloorMonitor(floor, notify, rollback)
        guards = cls(
            DriftGuard(max_drift, notify), FloorGuard(prompts, monitor, trainer) if prompts else None
        )
        trainer.add_callback(guards.drift)
        if guards.floor:
            trainer.add_callback(guards.floor)
        return guards

    @property
    def stopped(self) -> str | None:
        """Message of the guard that stopped the run; None if it ran to its end."""
        return self.drift.stopped or (self.floor.monitor.stopped if self.floor else None)

    @property
    def readings(self) -> list[dict[str, Any]]:
        """Measurements of the floor guard."""
        return self.floor.readings if self.floor else []


def _without_special_tokens(reply: str, tokenizer: Any) -> str:
    for token in (*tokenizer.all_special_tokens, *tokenizer.convert_ids_to_tokens(turn_end_ids(tokenizer))):
        reply = reply.replace(token, "")
    return reply
