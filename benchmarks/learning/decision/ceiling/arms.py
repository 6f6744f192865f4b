"""The arms of the ceiling experiment: how much of the model is trained on the labels, and how."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Arm:
    """Trained part of the model and settings of the training."""

    layers: int | None
    """Top layers with an adapter; None: all layers."""
    rank: int
    """LoRA rank; 0: all weights are trained, without an adapter."""
    learning_rate: float
    """Peak after the warm-up; decays linearly to zero at the end of the last epoch."""
    epochs: int
    batch: int = 32
    warmup: int = 5
    """Steps in which the learning rate rises."""
    max_grad_norm: float = 1.0


ARMS = {
    "top-layer": Arm(layers=1, rank=16, learning_rate=1e-3, epochs=8),
    "top-four": Arm(layers=4, rank=16, learning_rate=5e-4, epochs=4),
    "all-layers": Arm(layers=None, rank=16, learning_rate=5e-4, epochs=4),
    "all-weights": Arm(layers=None, rank=0, learning_rate=1e-4, epochs=4),
}
"""Arms by name."""
