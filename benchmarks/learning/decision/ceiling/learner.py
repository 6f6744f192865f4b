"""Trains the decision on labels: whether a prompt is harmful, with both halves of equal weight."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.learning.decision.ceiling.arms import Arm
from benchmarks.learning.decision.model.policy import DecisionPolicy, EncodedPrompts
from benchmarks.learning.decision.report import separation


class AllWeightsPolicy(DecisionPolicy):
    """A policy whose weights are all trained, the embeddings too. Its prompts stay tokens until each pass."""

    def _adapt(self, layers: int, rank: int) -> None:
        self.model.requires_grad_(True)

    def encode(
        self, prompts: Sequence[str], cache: Path, hints: Sequence[str | None] | None = None
    ) -> EncodedPrompts:
        """Returns the prompts as tokens, because every state changes during training."""
        return self.tokenize(prompts, hints)

    def _states(self, encoded: EncodedPrompts) -> EncodedPrompts:
        return self.embed(encoded)


def policy_of(arm: Arm, folder: Path, *, bfloat16: bool) -> DecisionPolicy:
    """Loads a model with the parts that an arm trains."""
    from transformers import AutoConfig

    layers = arm.layers or AutoConfig.from_pretrained(folder).num_hidden_layers
    if arm.rank:
        return DecisionPolicy(folder, layers, arm.rank, bfloat16)
    return AllWeightsPolicy(folder, layers, 0, bfloat16)


class LabelTraining:
    """The training of one arm with one seed, epoch by epoch, with a checkpoint after each.

    Args:
        harmful: (N,) labels of the prompts.
        checkpoint: file of the state after the last epoch; training continues from it if it exists.
    """

    def __init__(
        self,
        policy: DecisionPolicy,
        encoded: EncodedPrompts,
        harmful: Sequence[bool],
        arm: Arm,
        seed: int,
        checkpoint: Path,
    ) -> None:
        self._policy, self._encoded, self._arm, self._seed = policy, encoded, arm, seed
        self._checkpoint = checkpoint
        self._labels = torch.tensor(harmful, dtype=torch.float64)  # (N,)
        share = self._labels.mean()
        self._weights = torch.where(self._labels == 1, 0.5 / share, 0.5 / (1 - share))  # (N,), mean 1
        policy.reset(seed)
        self._optimizer = torch.optim.AdamW(policy.trainable, lr=arm.learning_rate, weight_decay=0.0)
        self.records: list[dict[str, Any]] = []
        """Records of the finished epochs, as `run_epoch` returns them."""
        if checkpoint.is_file():
            self._load()

    @property
    def finished(self) -> int:
        """Number of finished epochs."""
        return len(self.records)

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return -(-len(self._labels) // self._arm.batch)

    def run_epoch(self, on_step: Callable[[], None] | None = None) -> dict[str, Any]:
        """Trains on every prompt once, and saves a checkpoint.

        Returns:
            Mean `loss`, `learnt_auc` of the log-odds that the prompts had in their steps, and CPU seconds.
        """
        start = time.process_time()
        order = list(range(len(self._labels)))
        random.Random(f"{self._seed} {self.finished}").shuffle(order)
        log_odds, losses = torch.empty(len(order), dtype=torch.float64), []
        for at in range(self.steps):
            indices = order[at * self._arm.batch : (at + 1) * self._arm.batch]
            self._set_learning_rate(self.finished * self.steps + at)
            odds = self._policy.log_odds(self._encoded.select(indices))
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                odds, self._labels[indices], self._weights[indices]
            )
            self._optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self._policy.trainable, self._arm.max_grad_norm)
            self._optimizer.step()
            log_odds[indices] = odds.detach()
            losses.append(loss.item())
            if on_step is not None:
                on_step()
        sides = {"learnt/harmful": self._labels == 1, "learnt/harmless": self._labels == 0}
        self.records.append(
            {
                "loss": round(float(np.mean(losses)), 4),
                "learnt_auc": round(
                    separation({name: log_odds[side].tolist() for name, side in sides.items()}, own=False), 4
                ),
                "cpu_seconds": round(time.process_time() - start, 1),
            }
        )
        self._save()
        return self.records[-1]

    def _set_learning_rate(self, step: int) -> None:
        total = self._arm.epochs * self.steps
        warmup = min(1.0, (step + 1) / (self._arm.warmup + 1))
        self._optimizer.param_groups[0]["lr"] = self._arm.learning_rate * warmup * (1 - step / total)

    def _save(self) -> None:
        state = {
            "records": self.records,
            "weights": [parameter.detach() for parameter in self._policy.trainable],
            "optimizer": self._optimizer.state_dict(),
        }
        self._checkpoint.parent.mkdir(parents=True, exist_ok=True)
        partial = self._checkpoint.with_suffix(".tmp")
        torch.save(state, partial)
        partial.replace(self._checkpoint)

    def _load(self) -> None:
        state = torch.load(self._checkpoint, weights_only=True)
        weights: list[Tensor] = state["weights"]
        with torch.no_grad():
            for parameter, value in zip(self._policy.trainable, weights, strict=True):
                parameter.copy_(value)
        self._optimizer.load_state_dict(state["optimizer"])
        self.records = state["records"]
