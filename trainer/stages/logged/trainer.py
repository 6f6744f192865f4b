"""Replay of logged episodes through TRL's `GRPOTrainer`, in place of sampling new ones.

Like `ifpo_trainer.py`, this overrides private methods of TRL; the same contract test checks them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from trl.trainer.utils import RepeatSampler, nanstd

from trainer.stages.ifpo_trainer import IFPOTrainer, Output, pad_right
from trainer.stages.logged import drift

_MEANS_OVER_ROWS = ("grpo", "sapo", "dr_grpo", "luspo")
"""Losses that TRL divides by the number of rows."""


class EpochSampler(RepeatSampler):  # type: ignore[misc]
    """TRL's sampler with an order that depends only on the seed and the epoch.

    TRL draws the orders of all epochs from one generator, so a run resumed in its second epoch would repeat
    the order of the first one.
    """

    def set_epoch(self, epoch: int) -> None:
        if self.shuffle:
            self.generator.manual_seed(self.seed + epoch)


class LoggedIFPOTrainer(IFPOTrainer):
    """Trains on logged episodes: their tokens, loss masks, behaviour log-probabilities and advantages.

    Columns of the dataset: `prompt` and `completion` (text, for tables only), `prompt_ids`, `completion_ids`,
    `loss_mask` (1 where the policy wrote the token), `logprobs` (of the behaviour policy), `reward`,
    `advantage`, and `token_advantages` (C,) if tokens of an episode differ in their advantage. `kind`, `mode`
    and `decision` (first position, and the one after the last) serve the metrics of the decision. The
    importance ratio uses `logprobs`, never the current policy, so the log is treated as off-policy.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, reward_funcs=logged_reward, **kwargs)
        self._add_turn_ends()
        self._rows: list[dict[str, Any]] = []
        self._loss_mask: torch.Tensor | None = None  # (B, C), within `_compute_loss`
        self._logps = torch.zeros(0)  # (B, C), of the latest forward pass
        self._counted: Any = None  # the buffered micro-batches that `_episode_counts` is about
        self._episode_counts: torch.Tensor | None = None  # (P, S) episodes of each micro-batch of a process

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        # Rows are independent: their groups mattered only when the advantages were computed.
        return EpochSampler(
            data_source=dataset if dataset is not None else self.train_dataset,
            mini_repeat_count=1,
            batch_size=self.args.generation_batch_size,
            repeat_count=self.num_iterations * self.args.steps_per_generation,
            shuffle=self.shuffle_dataset,
            seed=self.args.seed,
        )

    def _generate_and_score_completions(self, inputs: Any) -> Output:
        self._rows = inputs
        output = super()._generate_and_score_completions(inputs)
        output["old_per_token_logps"] = output["sampling_per_token_logps"]
        here = self._is_episode()
        if not here.all():
            output["is_episode"] = here
        if "token_advantages" in inputs[0]:
            by_token = [row["token_advantages"] for row in inputs]
            width = output["completion_ids"].shape[1]
            advantages = pad_right(by_token, width, 0.0)  # (B, C)
            if self.multiplier is not None and self.model.training:
                advantages = advantages * self._harmful_factors(inputs)[:, None]
            output["advantages"] = advantages.to(output["advantages"])
        if "decision" in inputs[0]:
            ids = output["completion_ids"]
            output["consult_direction"] = drift.consult_direction(inputs, ids.shape[1]).to(
                ids.device
            )  # (B, C)
            output["kind"] = torch.tensor([drift.kind_index(row["kind"]) for row in inputs]).to(ids.device)
        return output

    def _is_episode(self) -> torch.Tensor:
        """Returns (B,) False for the rows that only fill a batch: those without loss."""
        return torch.tensor([any(row["loss_mask"]) for row in self._rows], device=self.accelerator.device)

    def _count_episodes(self) -> None:
        """Excludes the rows that only fill a batch from the figures of rewards."""
        assert self._gathered is not None
        is_episode = self.accelerator.gather(self._is_episode())
        if not is_episode.all():
            rewards = self._gathered[0].masked_fill(~is_episode, torch.nan)
            self._gathered = rewards, self._gathered[1]
            mean, std = torch.nanmean(rewards).item(), nanstd(rewards).item()
            figures = {"reward": mean, "reward_std": std, "frac_reward_zero_std": float(std == 0)}
            for name in self.reward_func_names:
                figures |= {f"rewards/{name}/mean": mean, f"rewards/{name}/std": std}
            for name, value in figures.items():
                self._metrics[self._mode][name][-1] = value
        super()._count_episodes()

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        inputs = super()._prepare_inputs(generation_batch)
        if self.model.training and self._buffered_inputs is not self._counted:
            self._counted = self._buffered_inputs
            here = [int(_episodes_in(batch).sum()) for batch in self._counted]
            counts = self.accelerator.gather(torch.tensor([here], device=self.accelerator.device))
            self._episode_counts = counts  # (P, S)
        return inputs

    def _loss_scale(self, size: int) -> float:
        """Returns the factor that compensates for rows that only fill a batch.

        TRL divides some losses by the number of rows, or of micro-batches, of an optimizer step. The factor
        makes them means over its episodes.

        Args:
            size: rows of a micro-batch.
        """
        counts, window = self._episode_counts, self.current_gradient_accumulation_steps
        if counts is None or counts.shape[1] % window:
            return 1.0
        index = self._step % counts.shape[1]
        start = index - index % window
        counts = counts[:, start : start + window]
        episodes = int(counts.sum())
        if episodes == counts.numel() * size or not episodes:
            return 1.0
        if self.loss_type in _MEANS_OVER_ROWS:
            return counts.numel() * size / episodes
        return counts.numel() / int((counts > 0).sum()) if self.loss_type == "bnpo" else 1.0

    def _generate(self, prompts: Any) -> tuple[Any, ...]:
        rows = self._rows
        return (
            [row["prompt_ids"] for row in rows],
            [row["completion_ids"] for row in rows],
            [row["loss_mask"] for row in rows],
            [row["completion"] for row in rows],
            [row["logprobs"] for row in rows],
            {},  # extra fields for reward functions
            None,  # images
            None,  # images in tool results
        )

    def _episode_advantages(self, inputs: Any) -> torch.Tensor:
        local = torch.tensor([row["advantage"] for row in inputs], device=self.accelerator.device)
        advantages: torch.Tensor = self.accelerator.gather(local)
        return advantages

    def logprobs(self, rows: list[dict[str, Any]]) -> list[list[float]]:
        """Returns (C,) log-probabilities of each row under the current model, 0 outside `loss_mask`."""
        self._rows = rows
        return super().logprobs(rows)

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **_: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Returns log-probabilities and entropies, (N, C) each, 0 outside the loss mask, and MoE's loss.

        Without CUDA, TRL projects every position onto the vocabulary, including the prompt's, and masks
        afterwards. This method projects only the positions before a token in the loss mask, on every device.
        """
        loss_mask = self._loss_mask  # (N, C)
        if loss_mask is None:
            masks = [row["loss_mask"] for row in self._rows]
            loss_mask = pad_right(masks, logits_to_keep).to(input_ids.device)
        size = batch_size or len(input_ids)
        parts = [
            self._score(
                model,
                input_ids[i : i + size],
                attention_mask[i : i + size],
                loss_mask[i : i + size].bool(),
                compute_aux_loss,
            )
            for i in range(0, len(input_ids), size)
        ]
        logps, entropies, losses = zip(*parts, strict=True)
        scores = torch.cat(logps)
        self._logps = scores.detach()
        return (
            scores,
            torch.cat(entropies) if compute_entropy else None,
            torch.stack(losses).mean() if compute_aux_loss else None,
        )

    def _score(
        self, model: Any, ids: torch.Tensor, mask: torch.Tensor, loss_mask: torch.Tensor, moe: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Scores one micro-batch: (B, C) log-probabilities and entropies, and MoE's loss."""
        width = loss_mask.shape[1]
        positions = torch.zeros_like(ids, dtype=torch.bool)  # each predicts the token after it
        positions[:, -width - 1 : -1] = loss_mask
        causal = self.accelerator.unwrap_model(model)
        causal = causal.get_base_model() if hasattr(causal, "get_base_model") else causal
        with _select_hidden_states(causal.base_model, positions), self.accelerator.autocast():
            output = model(  # the wrapped model, whose hooks distribute the gradient
                input_ids=ids,
                attention_mask=mask,
                shift_labels=ids[:, -width:][loss_mask][None],  # (1, S), like the hidden states
                fused_lm_head=True,
                **({"output_router_logits": True} if moe else {}),
            )
        logps, entropy = (
            None if part is None else part.new_zeros(loss_mask.shape).masked_scatter(loss_mask, part)
            for part in (output.log_probs, output.entropy)
        )
        assert logps is not None
        return logps, entropy, output.aux_loss

    def _compute_loss(self, model: Any, inputs: Output) -> Any:
        inputs = _without_padding(inputs)
        loss_mask = (inputs["completion_mask"] * inputs["tool_mask"]).bool()
        self._loss_mask = loss_mask
        loss = super()._compute_loss(model, inputs)
        self._loss_mask = None
        if (scale := self._loss_scale(len(loss_mask))) != 1:
            loss = loss * scale
        log_ratios = self._logps - inputs["old_per_token_logps"]  # (B, C)
        metrics = drift.divergence(log_ratios[loss_mask], self.accelerator)
        if self.off_policy_mask_threshold is not None:
            threshold = self.off_policy_mask_threshold
            metrics |= drift.off_policy_share(
                log_ratios, loss_mask, inputs["advantages"], threshold, self.accelerator, _episodes_in(inputs)
            )
        if "consult_direction" in inputs:
            signs = inputs["consult_direction"] * loss_mask
            metrics |= drift.decision_drift(log_ratios, signs, inputs["kind"], self.accelerator)
        for name, (value, count) in metrics.items():
            self._metrics["train"][name].append(value)
            self._batch_means["train"].add(self._metrics["train"], {name: count})
        return loss


def _episodes_in(batch: Output) -> torch.Tensor:
    """Returns (B,) whether each row is an episode rather than a filler of the batch."""
    rows = batch["advantages"]
    found: torch.Tensor = batch.get("is_episode", torch.ones(len(rows), dtype=torch.bool, device=rows.device))
    return found


@contextmanager
def _select_hidden_states(backbone: torch.nn.Module, positions: torch.Tensor) -> Iterator[None]:
    """Within the block, makes `backbone` return only the hidden states at `positions` (B, T), as (1, S,
    H)."""

    def select(module: Any, inputs: Any, output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state[positions][None]
        return output

    hook = backbone.register_forward_hook(select)
    try:
        yield
    finally:
        hook.remove()


def _without_padding(inputs: Output) -> Output:
    """Removes the columns that are padding in all rows of a micro-batch.

    TRL pads every row to the longest of the whole step, so a direct answer beside a consultation is mostly
    padding. Prompts are (B, P), padded on the left, completions (B, C), padded on the right.
    """
    first = int(inputs["prompt_mask"].any(0).int().argmax())
    used = inputs["completion_mask"].any(0).nonzero()  # empty if all rows are truncated and masked
    width = int(used.max()) + 1 if len(used) else 1
    padded = inputs["completion_mask"].shape
    return {
        name: value[:, first:]
        if name in ("prompt_ids", "prompt_mask")
        else value[:, :width]
        if isinstance(value, torch.Tensor) and value.shape == padded
        else value
        for name, value in inputs.items()
    }


def logged_reward(completions: Any, reward: list[float], **_: Any) -> list[float]:
    """Returns the logged reward."""
    return reward
