"""IFPO with stratified groups: forces the mode of some replies, and weights every decision by its ratio."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from trainer.errors import TrainingError
from trainer.ifpo import decision_ratios, probabilities_disagree, token_advantages
from trainer.stages.ifpo_trainer import IFPOTrainer, Output
from trainer.stages.online.strata.call_opening import CONSULT, DIRECT, UNDECIDED, CallOpening, Decision
from trainer.stages.online.strata.forced_modes import modes_forced
from trainer.stages.online.strata.redraws import draw_groups
from trainer.stages.online.strata.vllm_server import ServerSampler, correct_logprobs

_NAMES = {CONSULT: "consult", DIRECT: "direct", None: ""}


@dataclass(frozen=True)
class FirstTurns:
    """The (B,) first replies of a batch on this process, in which modes are forced."""

    replies: list[list[int]]
    decisions: list[Decision]
    opens: list[list[float]]
    """(B, len(opening.ids)) log-probabilities of the tokens that open a call, where each reply decides."""


class StratifiedIFPOTrainer(IFPOTrainer):
    """`IFPOTrainer` that forces the first `forced_consult` replies of each group to consult, and the next
    `forced_direct` to answer directly.

    Forced replies are sampled from the policy given their stratum, so the probability of a stratum is exact:
    that of the tokens that open a call, after the reply's own thoughts. The tokens up to the decision carry
    the ratio `rho` of `trainer.ifpo.decision_ratios`, those after it carry the ratio 1. Their importance
    ratio is that of the unforced policy. Evaluations force nothing. With `max_draws` above 1, groups that do
    not compare the modes are replaced (`redraws`).

    Raises:
        TrainingError: the tokens that open a call do not explain how often the free episodes consult.
    """

    opening: CallOpening | None = None
    """Tokens that open a call; needed where modes are forced."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._forced: list[int | None] | None = None  # (B,), of a batch in which modes are forced
        self._first_turns: FirstTurns | None = None
        self._is_checked = False
        self._server: ServerSampler | None = None
        if self.use_vllm and self.vllm_mode == "server":
            self._server = ServerSampler(self.vllm_generation, self.accelerator)

    def _modes_to_force(self, size: int) -> list[int | None] | None:
        """Returns the (B,) forced modes of a batch on this process; None in an evaluation, or if none is
        forced."""
        consult, direct = self.args.forced_consult, self.args.forced_direct
        if not self.model.training or not consult + direct:
            return None
        first = self.accelerator.process_index * size
        places = [(first + index) % self.num_generations for index in range(size)]
        return [
            CONSULT if place < consult else DIRECT if place < consult + direct else None for place in places
        ]

    def _is_free(self, count: int) -> Any:
        """(N,) whether the policy chose the modes of the episodes of all processes."""
        forced = self.args.forced_consult + self.args.forced_direct if self.model.training else 0
        return np.arange(count) % self.num_generations >= forced

    def _generate_and_score_completions(self, inputs: Any) -> Output:
        if self.model.training and self.args.max_draws > 1:
            return draw_groups(self, inputs, self._score_batch)
        return self._score_batch(inputs)

    def _score_batch(self, inputs: Any) -> Output:
        """Samples and scores a batch once."""
        self._forced, self._first_turns = self._modes_to_force(len(inputs)), None
        if self._forced is not None:
            self._log_completion_extra("forced", [_NAMES[mode] for mode in self._forced])
        output: Output = super()._generate_and_score_completions(inputs)
        if self._forced is not None:
            self._weigh_decisions(output)
        return output

    def _generate_single_turn(self, prompt_ids: Any, *args: Any, **kwargs: Any) -> Any:
        if self._forced is None or self._first_turns is not None:  # the first turn decides
            return super()._generate_single_turn(prompt_ids, *args, **kwargs)
        assert self.opening is not None
        opening, modes = self.opening, self._forced
        with self._modes_forced(opening, modes):
            replies, logprobs = super()._generate_single_turn(prompt_ids, *args, **kwargs)
        decisions = [opening.decision(reply) for reply in replies]
        opens = self._opening_logprobs(prompt_ids, replies, decisions)
        if logprobs is not None:  # those of vLLM
            logprobs = [
                correct_logprobs(line, mode, opening, *rest)
                for line, mode, *rest in zip(logprobs, modes, decisions, replies, opens, strict=True)
            ]
        self._first_turns = FirstTurns([list(reply) for reply in replies], decisions, opens)
        return replies, logprobs

    def _modes_forced(self, opening: CallOpening, modes: list[int | None]) -> AbstractContextManager[None]:
        if self._server is not None:
            return self._server.modes_forced(opening, modes, self.eos_token_ids)
        return modes_forced(self.accelerator.unwrap_model(self.model_wrapped), opening, modes)

    def _opening_logprobs(
        self, prompts: list[list[int]], replies: list[list[int]], decisions: list[Decision]
    ) -> list[list[float]]:
        """Returns (B, len(opening.ids)) log-probabilities of opening a call, under the present policy."""
        assert self.opening is not None
        ids, size = self.opening.ids, self.args.per_device_train_batch_size
        rows = [
            {"prompt_ids": prompt + reply[: decision.start], "completion_ids": ids}
            for prompt, reply, decision in zip(prompts, replies, decisions, strict=True)
        ]
        return [
            line for start in range(0, len(rows), size) for line in self.logprobs(rows[start : start + size])
        ]

    def _weigh_decisions(self, output: Output) -> None:
        """Replaces the (B,) advantages by (B, C) advantages of the tokens."""
        assert self._first_turns is not None
        decisions = self._first_turns.decisions
        ratios = self._ratios(decisions, self._stratum_probabilities(self._first_turns.opens))
        first = self.accelerator.process_index * len(decisions)
        width = output["completion_ids"].shape[1]
        rows = [
            token_advantages(advantage, advantage, ratio, decision.end, width)
            for advantage, ratio, decision in zip(
                output["advantages"].tolist(), ratios[first:].tolist(), decisions, strict=False
            )
        ]
        output["advantages"] = torch.tensor(rows).to(output["advantages"])

    def _stratum_probabilities(self, lines: list[list[float]]) -> list[tuple[float, float]]:
        """Returns (B,) the probabilities of opening a call, and of leaving the opening before the call."""
        assert self.opening is not None
        opens = [math.exp(min(math.fsum(line), 0.0)) for line in lines]
        begins = [math.exp(min(math.fsum(line[: self.opening.lead + 1]), 0.0)) for line in lines]
        return [(consult, 1 - start) for consult, start in zip(opens, begins, strict=True)]

    def _ratios(self, decisions: list[Decision], probabilities: list[tuple[float, float]]) -> Any:
        """Returns the (N,) ratios of the decisions of all processes, and records their metrics."""
        assert self._gathered is not None
        assert self._forced is not None
        columns = [
            # A forced reply that ends inside its thoughts still counts as a sample of its mode's stratum.
            (*each, mode if decision.stratum == UNDECIDED and mode is not None else decision.stratum,
             decision.stratum == UNDECIDED)
            for each, mode, decision in zip(probabilities, self._forced, decisions, strict=True)
        ]  # fmt: skip
        local = torch.tensor(columns, dtype=torch.float64, device=self.accelerator.device)
        consult, direct, strata, undecided = self.accelerator.gather(local).T.cpu().numpy()
        rewards, consulted = (each.cpu().numpy() for each in self._gathered)
        free = self._is_free(len(strata))
        rated = ~np.isnan(rewards)
        self._check_probabilities(np.where(undecided, 0, consult)[free & rated], consulted[free & rated])
        own = np.where(strata == CONSULT, consult, np.where(strata == DIRECT, direct, 0.0))
        groups = np.arange(len(strata)) // self.num_generations
        ratios = np.ones(len(strata))
        ratios[rated] = decision_ratios(own[rated], strata[rated], ~free[rated], groups[rated])
        ratios[undecided == 1] = 1.0
        metrics = self._metrics["train"]
        if not undecided.all():
            metrics["ifpo/opening_probability"].append(float(consult[undecided == 0].mean()))
        metrics["ifpo/largest_ratio"].append(float(ratios.max()))
        return ratios

    def _check_probabilities(self, probability: Any, consulted: Any) -> None:
        """Raises a TrainingError if the first batch shows that a call does not begin where it is expected."""
        if self._is_checked:
            return
        self._is_checked = True
        if probabilities_disagree(probability.tolist(), consulted.tolist()):
            raise TrainingError(
                "modes cannot be forced: the mean probability of the tokens that open a call is "
                f"{probability.mean():.3f}, but {consulted.mean():.3f} of the free episodes consulted, so "
                "this model writes something before its calls, or writes them in another form; remove "
                "forced_consult and forced_direct, or turn thinking off (chat_template_kwargs: "
                "{enable_thinking: false})"
            )
