"""IFPO on TRL's `GRPOTrainer`: all of our contact with its private parts is here.

`IFPOTrainer` changes the advantages and nothing else; loss, clipping, KL and distribution are TRL's.
`LoggedIFPOTrainer` replays logged episodes through the same class in place of sampling new ones.
TRL is pinned below 1.17; a contract test holds what is relied upon.
"""

from __future__ import annotations

from typing import Any

import torch
from trl import GRPOTrainer
from trl.trainer.utils import RepeatSampler

from trainer.config import IFPOConfig
from trainer.ifpo import ifpo_advantages, inverse_frequency_weights
from trainer.modes import mode_of

Output = dict[str, Any]


class IFPOTrainer(GRPOTrainer):  # type: ignore[misc]
    """`GRPOTrainer` whose advantages are weighted by the inverse frequency of each episode's mode.

    One composed reward function, not several: TRL counts a None among several as zero, which would punish an
    episode for a judge's outage. An episode whose reward is None is left out of its group.

    Raises:
        ValueError: for more than one reward function, or another `multi_objective_aggregation`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if len(self.reward_funcs) != 1 or self.multi_objective_aggregation != "sum_then_normalize":
            raise ValueError("IFPO takes one composed reward function: add the parts up inside it")
        self._gathered: tuple[torch.Tensor, torch.Tensor] | None = None

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids: Any) -> Any:
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids)  # (N, 1), gathered
        modes = [_conversation(completion) for completion in completions]
        consulted = torch.tensor([mode_of(each) == "consult" for each in modes], device=rewards.device)
        self._gathered = rewards[:, 0] * self.reward_weights[0].item(), self.accelerator.gather(consulted)
        return rewards

    def _generate_and_score_completions(self, inputs: Any) -> Output:
        output: Output = super()._generate_and_score_completions(inputs)
        advantages = self._episode_advantages(inputs)  # (N,), of all processes
        local = len(inputs)
        first = self.accelerator.process_index * local
        output["advantages"] = advantages[first : first + local].to(output["advantages"])
        logged = self._logs["advantages"]
        for _ in range(len(advantages)):  # a deque's tail cannot be sliced
            logged.pop()
        logged.extend(advantages.tolist())
        return output

    def _episode_advantages(self, inputs: Any) -> torch.Tensor:
        assert self._gathered is not None
        rewards, consulted = self._gathered
        mode = "train" if self.model.training else "eval"
        size = self.num_generations if mode == "train" else self.num_generations_eval
        groups = torch.arange(len(rewards), device=rewards.device) // size
        scored = ~rewards.isnan()
        args: IFPOConfig = self.args
        advantages = torch.zeros_like(rewards)
        advantages[scored] = ifpo_advantages(
            rewards[scored],
            consulted[scored],
            groups[scored],
            alpha=args.alpha,
            w_max=args.w_max,
            baseline=args.baseline,  # type: ignore[arg-type]
            scale_rewards=self.scale_rewards,
        )
        weights = inverse_frequency_weights(
            consulted[scored], groups[scored], alpha=args.alpha, w_max=args.w_max
        )
        metrics = self._metrics[mode]
        metrics["ifpo/consult_rate"].append(consulted.float().mean().item())
        metrics["ifpo/largest_weight"].append(float(weights.max(initial=0.0)))
        return advantages


def _conversation(completion: Any) -> list[dict[str, Any]]:
    return completion if isinstance(completion, list) else [{"role": "assistant", "content": completion}]


class LoggedIFPOTrainer(IFPOTrainer):
    """Replays logged episodes: their tokens, loss masks, behaviour log-probabilities and advantages.

    The dataset's columns: `prompt` and `completion` (text, shown in tables only), `prompt_ids`,
    `completion_ids`, `wrote` (1 where the policy wrote the token), `logprobs` (of the behaviour policy),
    `reward` and `advantage`. The importance ratio is taken against `logprobs`, never against the policy of
    the moment, so the log is not treated as if it were on-policy.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, reward_funcs=logged_reward, **kwargs)
        self._rows: list[dict[str, Any]] = []
        self._logps: torch.Tensor | None = None

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        # Every row stands for itself: its group took part when the advantages were computed.
        return RepeatSampler(
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

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
        scored = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        self._logps = scored[0].detach()
        return scored

    def _compute_loss(self, model: Any, inputs: Output) -> Any:
        inputs = _without_padding(inputs)
        loss = super()._compute_loss(model, inputs)
        # How far the policy has gone from the one that sampled: k3, the estimate that is never negative.
        wrote = (inputs["completion_mask"] * inputs["tool_mask"]).bool()
        assert self._logps is not None
        moved = (self._logps - inputs["old_per_token_logps"])[wrote]  # (S,) log-ratios
        if len(moved):
            self._metrics["train"]["logged/kl"].append((moved.expm1() - moved).mean().item())
            self._metrics["train"]["logged/largest_ratio"].append(moved.max().exp().item())
        return loss


def _without_padding(inputs: Output) -> Output:
    """A micro-batch without the columns that are padding in all of its rows.

    TRL pads every row to the longest of the whole step; a direct answer beside a consultation is mostly that.
    Prompts are (B, P), padded on the left, completions (B, C), padded on the right.
    """
    first = int(inputs["prompt_mask"].any(0).int().argmax())
    width = int(inputs["completion_mask"].any(0).nonzero().max()) + 1
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
