"""IFPO on top of TRL's `GRPOTrainer`.

`IFPOTrainer` changes the advantages only; loss, clipping, KL and distribution are TRL's. `LoggedIFPOTrainer`
and `OnlineIFPOTrainer` extend it. These three classes override private methods of TRL, which is pinned below
1.17; `tests/trainer/stages/test_trl_contract.py` checks the methods that they rely on.
"""

from __future__ import annotations

from typing import Any

import torch
from trl import GRPOTrainer

from trainer.ifpo import ifpo_advantages, inverse_frequency_weights, with_consultation_cost
from trainer.stages.checkpoints import AtomicCheckpoints
from trainer.stages.config import IFPOConfig
from trainer.stages.monitoring import MULTIPLIER_METRIC, BatchMeans, SafetyMultiplier
from trainer.tokens import consultations_of, turn_end_ids

Output = dict[str, Any]

_EPISODE_MEANS = (
    *("ifpo/consult_rate", "ifpo/unscored", "frac_reward_zero_std"),
    *("completions/mean_length", "completions/clipped_ratio", "tools/call_frequency"),
)
_TOKEN_MEANS = (
    *("kl", "entropy", "cispo_clip_ratio"),
    *("clip_ratio/low_mean", "clip_ratio/high_mean", "clip_ratio/region_mean"),
)
_PARTS = ("mean", "std")


class IFPOTrainer(AtomicCheckpoints, GRPOTrainer):  # type: ignore[misc]
    """`GRPOTrainer` whose advantages are weighted by the inverse frequency of each episode's mode.

    It takes one composed reward function: with several, TRL would count None as zero, and so penalise an
    episode for a judge's outage. An episode whose reward is None is left out of its group. With `alpha = 0`
    and no `cost`, the advantages equal TRL's bit for bit; with a cost, they are GRPO's after subtracting the
    cost.

    Raises:
        ValueError: more than one reward function, or an unsupported `multi_objective_aggregation`.
    """

    eos_token_ids: list[int]  # of TRL: the tokens that end a completion

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if len(self.reward_funcs) != 1 or self.multi_objective_aggregation != "sum_then_normalize":
            raise ValueError("IFPO takes one composed reward function: combine your reward functions in one")
        # (N,) rewards and whether each episode consulted, gathered from all processes.
        self._gathered: tuple[torch.Tensor, torch.Tensor] | None = None
        self._consultations = torch.zeros(0)  # (N,) number of consultations, gathered
        self._batch_means = {"train": BatchMeans(), "eval": BatchMeans()}
        self.multiplier = SafetyMultiplier.of(self.args)

    @property
    def _mode(self) -> str:
        """Key of the metrics: `train` or `eval`."""
        return "train" if self.model.training else "eval"

    @property
    def _alpha(self) -> float:
        """Strength of the weighting at the present update: linear from `alpha` to `alpha_end`, if given."""
        start, end = float(self.args.alpha), self.args.alpha_end
        if end is None:
            return start
        share: float = min(self.state.global_step / max(self.state.max_steps - 1, 1), 1.0)
        return start + (float(end) - start) * share

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        self._batch_means[self._mode].merge(self._metrics[self._mode])
        super().log(logs, start_time)

    def _add_turn_ends(self) -> None:
        """Adds the tokens with which the chat template ends a turn to those that end a completion.

        TRL knows those of the tokenizer and of the model's generation configuration. With another one,
        sampling would not stop at the end of a turn, and every completion would count as truncated.
        """
        ends = [id for id in turn_end_ids(self._tokenizer) if id not in self.eos_token_ids]
        if not ends:
            return
        self.eos_token_ids = [*self.eos_token_ids, *ends]
        given = self.args.generation_kwargs or {}
        if self.use_vllm:
            generation = self.vllm_generation
            generation.generation_kwargs = {"stop_token_ids": self.eos_token_ids, **given}
        elif "eos_token_id" not in given:
            self.generation_kwargs["eos_token_id"] = self.eos_token_ids
            self.generation_config.eos_token_id = self.eos_token_ids

    def logprobs(self, rows: list[dict[str, Any]]) -> list[list[float]]:
        """Returns (C,) log-probabilities of each row's `completion_ids` after its `prompt_ids`, under the
        current model."""
        prompt_width = max(len(row["prompt_ids"]) for row in rows)
        width = max(len(row["completion_ids"]) for row in rows)
        pad = self.processing_class.pad_token_id
        ids, mask = [], []
        for row in rows:
            padding, tokens = prompt_width - len(row["prompt_ids"]), row["prompt_ids"] + row["completion_ids"]
            ids.append([pad] * padding + tokens)
            mask.append([0] * padding + [1] * len(tokens))
        device, training = self.accelerator.device, self.model.training
        self.model.eval()
        with torch.no_grad():
            scores, _, _ = self._get_per_token_logps_and_entropies(
                self.model,
                pad_right(ids, prompt_width + width).to(device),
                pad_right(mask, prompt_width + width).to(device),
                width,
            )
        self.model.train(training)
        return [line[: len(row["completion_ids"])] for line, row in zip(scores.tolist(), rows, strict=True)]

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids: Any) -> Any:
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids)  # (N, 1), gathered
        counts = [consultations_of(_to_messages(completion)) for completion in completions]
        self._consultations = self.accelerator.gather(torch.tensor(counts, device=rewards.device))
        self._gathered = rewards[:, 0] * self.reward_weights[0].item(), self._consultations > 0
        return rewards

    def _generate_and_score_completions(self, inputs: Any) -> Output:
        output: Output = super()._generate_and_score_completions(inputs)
        advantages = self._episode_advantages(inputs)  # (N,), of all processes
        self._count_episodes()
        if advantages is not None:
            local = len(inputs)
            first = self.accelerator.process_index * local
            output["advantages"] = advantages[first : first + local].to(output["advantages"])
            history = self._logs["advantages"]  # a deque of limited length, which cannot be sliced
            for _ in range(min(len(advantages), len(history))):
                history.pop()
            history.extend(advantages.tolist())
        if self.multiplier is not None and self.model.training:
            factors = self._harmful_factors(inputs)
            output["advantages"] = output["advantages"] * factors.to(output["advantages"])
            self._metrics["train"][MULTIPLIER_METRIC].append(self.multiplier.value(self.state))
            self.multiplier.update(self.state, self._watched_rate(inputs))
        return output

    def _harmful_factors(self, inputs: Any) -> torch.Tensor:
        """Returns (B,) the safety multiplier for harmful prompts, and 1 for others."""
        assert self.multiplier is not None
        value = self.multiplier.value(self.state)
        return torch.tensor([value if row.get("kind") == "harmful" else 1.0 for row in inputs])

    def _watched_rate(self, inputs: Any) -> float | None:
        """Returns the rate by which a batch changes the safety multiplier; None if others measure it."""
        return None

    def _count_episodes(self) -> None:
        """Records the number of episodes over which the metrics of this batch are averaged."""
        assert self._gathered is not None
        metrics = self._metrics[self._mode]
        episodes = len(self._gathered[0])
        scored = int((~self._gathered[0].isnan()).sum())
        clipped = (metrics.get("completions/clipped_ratio") or [0.0])[-1]
        calls = (metrics.get("tools/call_frequency") or [0.0])[-1]
        counts: dict[str, float] = dict.fromkeys(_EPISODE_MEANS, episodes)
        counts |= {"completions/mean_terminated_length": episodes * (1 - clipped)}
        counts |= {"tools/failure_frequency": episodes * calls, "reward": scored, "reward_std": scored}
        counts |= {f"rewards/{name}/{part}": scored for name in self.reward_func_names for part in _PARTS}
        self._batch_means[self._mode].add(metrics, counts)

    def _compute_loss(self, model: Any, inputs: Output) -> Any:
        loss = super()._compute_loss(model, inputs)
        mask = inputs["completion_mask"]
        mask = mask * inputs["tool_mask"] if "tool_mask" in inputs else mask
        tokens = self.accelerator.reduce(mask.sum().float()).item()
        self._batch_means[self._mode].add(self._metrics[self._mode], dict.fromkeys(_TOKEN_MEANS, tokens))
        return loss

    def _episode_advantages(self, inputs: Any) -> torch.Tensor | None:
        """(N,) advantages of the episodes of all processes; None keeps those that TRL computed."""
        assert self._gathered is not None
        rewards, consulted = self._gathered
        mode = self._mode
        size = self.num_generations if mode == "train" else self.num_generations_eval
        groups = torch.arange(len(rewards), device=rewards.device) // size
        scored = ~rewards.isnan()
        args: IFPOConfig = self.args
        metrics = self._metrics[mode]
        metrics["ifpo/consult_rate"].append(consulted.float().mean().item())
        metrics["ifpo/unscored"].append((~scored).float().mean().item())
        alpha = self._alpha
        if args.alpha_end is not None:
            metrics["ifpo/alpha"].append(alpha)
        if alpha == 0 and args.cost == 0:
            return None
        weights = inverse_frequency_weights(
            consulted[scored],
            groups[scored],
            alpha=alpha,
            w_max=args.w_max,
            frequency=args.frequency,  # type: ignore[arg-type]
        )
        metrics["ifpo/largest_weight"].append(float(weights.max(initial=0.0)))
        advantages = torch.zeros_like(rewards)
        advantages[scored] = ifpo_advantages(
            with_consultation_cost(
                rewards[scored],
                self._consultations[scored],
                args.cost,
                groups=groups[scored],
                where=args.consult_cost_where,  # type: ignore[arg-type]
            ),
            consulted[scored],
            groups[scored],
            alpha=alpha,
            w_max=args.w_max,
            baseline=args.baseline,  # type: ignore[arg-type]
            scale_rewards=self.scale_rewards,
            frequency=args.frequency,  # type: ignore[arg-type]
        )
        return advantages


def pad_right(rows: list[list[Any]], width: int, value: float = 0) -> torch.Tensor:
    """Returns an (N, width) tensor of the rows, padded on the right."""
    return torch.tensor([row + [value] * (width - len(row)) for row in rows])


def _to_messages(completion: Any) -> list[dict[str, Any]]:
    return completion if isinstance(completion, list) else [{"role": "assistant", "content": completion}]
