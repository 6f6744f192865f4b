"""`SFTTrainer` that computes logits only at the positions that contribute to the loss.

On CPU, TRL's fused language-model head projects every position onto the vocabulary and masks afterwards. Most
positions of an episode are prompt and tool text; skipping them shortens a step by about a third.
"""

from typing import Any

import torch
from trl import SFTTrainer

IGNORE_INDEX = -100


class SupervisedTrainer(SFTTrainer):  # type: ignore[misc]
    """`SFTTrainer(loss_type="nll")` for a causal model, with or without an adapter; no token metrics."""

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        causal = self.accelerator.unwrap_model(model)
        causal = causal.get_base_model() if hasattr(causal, "get_base_model") else causal
        hidden = causal.base_model(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False
        ).last_hidden_state[:, :-1]  # (B, T-1, H)
        labels = inputs["labels"][:, 1:]  # (B, T-1)
        scored = labels != IGNORE_INDEX
        logits = causal.get_output_embeddings()(hidden[scored])  # (S, V)
        total = torch.nn.functional.cross_entropy(logits.float(), labels[scored], reduction="sum")
        return total / (scored.sum() if num_items_in_batch is None else num_items_in_batch)
