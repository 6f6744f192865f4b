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
        batch = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}
        labels = inputs["labels"][:, 1:]  # (B, T-1)
        scored = labels != IGNORE_INDEX
        if getattr(self, "_plain_head", None) is None:
            self._plain_head = _has_plain_head(causal, batch, scored)
        if self._plain_head:
            hidden = causal.base_model(**batch, use_cache=False).last_hidden_state[:, :-1]  # (B, T-1, H)
            logits = causal.get_output_embeddings()(hidden[scored])  # (S, V)
        else:
            positions = scored.any(dim=0).nonzero().squeeze(1)  # (P,)
            logits = causal(**batch, use_cache=False, logits_to_keep=positions).logits  # (B, P, V)
            logits = logits[scored[:, positions]]  # (S, V)
        total = torch.nn.functional.cross_entropy(logits.float(), labels[scored], reduction="sum")
        return total / (scored.sum() if num_items_in_batch is None else num_items_in_batch)


@torch.no_grad()
def _has_plain_head(causal: Any, batch: dict[str, torch.Tensor], scored: torch.Tensor) -> bool:
    """Returns whether logits are the output embedding of the last hidden state, and nothing more.

    Some families scale them (Granite, Cohere) or cap them (Gemma 2). Measured at the first scored position.
    """
    row, position = (int(index) for index in scored.nonzero()[0])
    first = {name: values[row : row + 1, : position + 1] for name, values in batch.items()}
    plain = causal.get_output_embeddings()(
        causal.base_model(**first, use_cache=False).last_hidden_state[:, -1]
    )
    own = causal(**first, use_cache=False).logits[:, -1]
    return torch.allclose(plain.float(), own.float(), rtol=1e-3, atol=1e-4)
