"""Gradients of a group's loss in a new LoRA adapter, separately for the decision and the other tokens.

A new adapter's `B` matrices are zero, so only they have a gradient. The gradients are linear in the
advantages, so those of the decision are kept per possible first token and combined later. Each vector is
reduced by a random projection with a fixed seed (a count sketch), which keeps inner products.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.learning.decision.model.policy import EncodedPrompts, build_tree

SKETCH = 16384
"""Length of a reduced gradient; an inner product of unit vectors then has an error of about 1/128."""
SKETCH_SEED = 20261130


@dataclass(frozen=True)
class Branch:
    """One continuation of a prompt: its tokens, and the inputs of the first adapted layer there."""

    ids: list[int]
    hidden: Tensor
    """(len(ids) - 1, H): the last token is not run."""
    coefficients: list[list[float]]
    """One row for each requested gradient: (len(ids),) weights of the tokens' log-probabilities."""


class AdapterGradients:
    """Gradients in the parameters of an adapter on the top layers of a model.

    Args:
        folder: model folder, which names the modules that an adapter covers.
        model: the model; the adapter is added to it.
        layers, rank: settings of the adapter, as in `ascl-train online`.
        temperature: sampling temperature; log-probabilities are those of the tempered policy, as in TRL.
    """

    def __init__(self, folder: Path, model: Any, layers: int, rank: int, temperature: float) -> None:
        import peft

        from trainer.stages import model_io, silence_libraries

        torch.manual_seed(0)
        with silence_libraries():
            peft.get_peft_model(model, model_io.adapter_config(folder, rank, layers))
        self.model, self.temperature = model, temperature
        self.first = len(model.model.layers) - layers
        named = [(name, each) for name, each in model.named_parameters() if each.requires_grad]
        for name, parameter in named:  # at the start only B has a gradient
            parameter.requires_grad = "lora_B" in name
        self.parameters = [parameter for name, parameter in named if "lora_B" in name]
        self.size = sum(parameter.numel() for parameter in self.parameters)
        random = np.random.default_rng(SKETCH_SEED)
        self._bucket = torch.from_numpy(random.integers(0, SKETCH, self.size))
        self._sign = torch.from_numpy(random.choice(np.array([-1.0, 1.0], np.float32), self.size))

    def sketches(self, prompt: Tensor, branches: Sequence[Branch]) -> Tensor:
        """Returns (K, SKETCH): the sketch of each requested gradient of `sum of coefficient *
        log-probability`.

        Args:
            prompt: (L, H) inputs of the first adapted layer at the prompt's tokens.
            branches: continuations with K rows of coefficients each.
        """
        x, positions, mask, starts = _tree(prompt, [branch.hidden for branch in branches])
        rotary = self.model.model.rotary_emb(x, positions)
        for layer in self.model.model.layers[self.first :]:
            x = layer(x, attention_mask=mask, position_ids=positions, position_embeddings=rotary)
        x = self.model.model.norm(x)[0]
        rows, targets, weights = [], [], []
        for branch, start in zip(branches, starts, strict=True):
            for place in range(len(branch.ids)):
                column = [row[place] for row in branch.coefficients]
                if any(column):
                    rows.append(len(prompt) - 1 if place == 0 else start + place - 1)
                    targets.append(branch.ids[place])
                    weights.append(column)
        count = len(branches[0].coefficients)
        if not rows:
            return torch.zeros(count, SKETCH)
        chosen = x[torch.tensor(rows)]
        slopes = self._slopes(chosen.detach(), torch.tensor(targets))
        scores = (chosen * slopes).sum(-1)  # has the gradient of each token's log-probability
        found = []
        for index in range(count):
            total = (scores * torch.tensor([column[index] for column in weights])).sum()
            parts = torch.autograd.grad(total, self.parameters, retain_graph=index + 1 < count)
            found.append(self.sketch(torch.cat([part.flatten() for part in parts])))
        return torch.stack(found)

    def _slopes(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Returns (N, H) the derivative of each token's log-probability in the final hidden state."""
        head = self.model.lm_head.weight
        with torch.no_grad():
            probabilities = (hidden @ head.T / self.temperature).softmax(-1)
            slopes: Tensor = (head[targets] - probabilities @ head) / self.temperature
        return slopes

    def sketch(self, vector: Tensor) -> Tensor:
        """Reduces a (size,) vector to (SKETCH,) numbers."""
        return torch.zeros(SKETCH).index_add_(0, self._bucket, vector * self._sign)


def _tree(prompt: Tensor, branches: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, list[int]]:
    """Joins a prompt and its branches to one sequence, in which each branch sees the prompt and itself.

    Returns:
        States (1, T, H), positions (1, T), attention mask (1, 1, T, T), first place of each branch.
    """
    encoded = EncodedPrompts(prompt, [prompt[:0]], [0] * len(branches), list(branches))
    states, positions, mask, last = build_tree(encoded)
    starts = [end + 1 - len(branch) for end, branch in zip(last.tolist(), branches, strict=True)]
    return states, positions, mask, starts
