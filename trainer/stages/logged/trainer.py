"""TODO: docstring."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from trl.trainer.utils import RepeatSampler

from trainer.stages.ifpo_trainer import IFPOTrainer, Output
from trainer.stages.logged import drift


class EpochSampler(RepeatSampler):  # type: ignore[misc]
    """TRL's sampler, whose order in an epoch depends on the seed and the epoch alone.

    TRL's draws one order after the other from one generator, so that a run resumed in its second epoch would
    see the first one's order again.
    """

    def set_epoch(self, epoch: int) -> None:
        if self.shuffle:
            self.generator.manual_seed(self.seed + epoch)


class LoggedIFPOTrainer(IFPOTrainer):
    """Replays logged episodes: their tokens, loss masks, behaviour log-probabilities and advantages.

    The dataset's columns: `prompt` and `completion` (text, shown in tables only), `prompt_ids`,
    `completion_ids`, `wrote` (1 where the policy wrote the token), `logprobs` (of the behaviour policy),
    `reward`, `advantage` and, where an episode's tokens differ in theirs, `token_advantages` (C,); `kind`,
    `mode` and `decision` (first position and the one after the last), to watch the decision. The importance
    ratio is taken against `logprobs`, never against the policy of the moment, so the log is not
    treated as if it were on-policy.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, reward_funcs=logged_reward, **kwargs)
        self._rows: list[dict[str, Any]] = []
        self._scored: torch.Tensor | None = None
        self._logps = torch.zeros(0)

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        # Every row stands for itself: its group took part when the advantages were computed.
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
        if "token_advantages" in inputs[0]:
            lines = [row["token_advantages"] for row in inputs]
            width = output["completion_ids"].shape[1]
            output["advantages"] = _padded(lines, width, 0.0).to(output["advantages"])  # (B, C)
        if "decision" in inputs[0]:
            ids = output["completion_ids"]
            output["towards"] = drift.consult_direction(inputs, ids.shape[1]).to(ids.device)  # (B, C)
            output["kind"] = torch.tensor([drift.kind_index(row["kind"]) for row in inputs]).to(ids.device)
        return output

    def _generate(self, prompts: Any) -> tuple[Any, ...]:
        rows = self._rows
        return (
            [row["prompt_ids"] for row in rows],
            [row["completion_ids"] for row in rows],
            [row["wrote"] for row in rows],
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
        """(C,) log-probabilities of each row's completion under the model as it is, 0 where `wrote` is 0."""
        longest = max(len(row["prompt_ids"]) for row in rows)
        width = max(len(row["completion_ids"]) for row in rows)
        pad = self.processing_class.pad_token_id
        ids, mask = [], []
        for row in rows:
            before, tokens = longest - len(row["prompt_ids"]), row["prompt_ids"] + row["completion_ids"]
            ids.append([pad] * before + tokens)
            mask.append([0] * before + [1] * len(tokens))
        device = self.accelerator.device
        self._rows, training = rows, self.model.training
        self.model.eval()
        with torch.no_grad():
            scores, _, _ = self._get_per_token_logps_and_entropies(
                self.model,
                _padded(ids, longest + width).to(device),
                _padded(mask, longest + width).to(device),
                width,
            )
        self.model.train(training)
        return [line[: len(row["wrote"])] for line, row in zip(scores.tolist(), rows, strict=True)]

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
        """Log-probabilities and entropies, (N, C) each, 0 where the policy did not write, and MoE's loss.

        Off CUDA, TRL projects every position onto the vocabulary, the prompt's too, and masks afterwards.
        Here only the positions before a token of the policy are projected, on every device.
        """
        scored = self._scored  # (N, C)
        if scored is None:
            scored = _padded([row["wrote"] for row in self._rows], logits_to_keep).to(input_ids.device)
        size = batch_size or len(input_ids)
        parts = [
            self._score(
                model,
                input_ids[i : i + size],
                attention_mask[i : i + size],
                scored[i : i + size].bool(),
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
        self, model: Any, ids: torch.Tensor, mask: torch.Tensor, scored: torch.Tensor, moe: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        width = scored.shape[1]
        before = torch.zeros_like(ids, dtype=torch.bool)
        before[:, -width - 1 : -1] = scored
        causal = self.accelerator.unwrap_model(model)
        causal = causal.get_base_model() if hasattr(causal, "get_base_model") else causal
        with _hidden_states_of(causal.base_model, before), self.accelerator.autocast():
            output = model(  # wrapped as it is: its hooks distribute the gradient
                input_ids=ids,
                attention_mask=mask,
                shift_labels=ids[:, -width:][scored][None],  # (1, S), as the hidden states are
                fused_lm_head=True,
                **({"output_router_logits": True} if moe else {}),
            )
        logps, entropy = (
            None if part is None else part.new_zeros(scored.shape).masked_scatter(scored, part)
            for part in (output.log_probs, output.entropy)
        )
        assert logps is not None
        return logps, entropy, output.aux_loss

    def _compute_loss(self, model: Any, inputs: Output) -> Any:
        inputs = _without_padding(inputs)
        wrote = (inputs["completion_mask"] * inputs["tool_mask"]).bool()
        self._scored = wrote
        loss = super()._compute_loss(model, inputs)
        self._scored = None
        moved = self._logps - inputs["old_per_token_logps"]  # (B, C) log-ratios
        found = drift.divergence(moved[wrote], self.accelerator)
        if self.off_policy_mask_threshold is not None:
            limit = self.off_policy_mask_threshold
            found |= drift.filter_drift(moved, wrote, inputs["advantages"], limit, self.accelerator)
        if "towards" in inputs:
            signs = inputs["towards"] * wrote
            found |= drift.decisions(moved, signs, inputs["kind"], self.accelerator)
        for name, value in found.items():
            self._metrics["train"][name].append(value)
        return loss


@contextmanager
def _hidden_states_of(backbone: torch.nn.Module, chosen: torch.Tensor) -> Iterator[None]:
    """Within the block, `backbone` returns the last hidden states of (B, T) chosen positions, (1, S, H)."""

    def only_chosen(module: Any, inputs: Any, output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state[chosen][None]
        return output

    hook = backbone.register_forward_hook(only_chosen)
    try:
        yield
    finally:
        hook.remove()


def _padded(lines: list[list[Any]], width: int, value: float = 0) -> torch.Tensor:
    """(N, width), padded on the right."""
    return torch.tensor([line + [value] * (width - len(line)) for line in lines])


def _without_padding(inputs: Output) -> Output:
    """A micro-batch without the columns that are padding in all of its rows.

    TRL pads every row to the longest of the whole step; a direct answer beside a consultation is mostly that.
    Prompts are (B, P), padded on the left, completions (B, C), padded on the right.
    """
    first = int(inputs["prompt_mask"].any(0).int().argmax())
    used = inputs["completion_mask"].any(0).nonzero()  # of none where all rows are cut off and masked for it
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
    """The reward that stands in the log."""
    return reward
