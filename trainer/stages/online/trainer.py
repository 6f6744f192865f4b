"""IFPO on fresh episodes: TRL's tool loop, with concurrent calls of the rule tool.

Like `ifpo_trainer.py`, this overrides private methods of TRL; the same contract test checks them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from trl.chat_template_utils import parse_response

from agent.episode import Message
from agent.tools import RULE_TOOL
from evaluation.prompts import KINDS
from trainer.ifpo import inverse_frequency_weights
from trainer.stages.ifpo_trainer import Output
from trainer.stages.online.batch_metrics import BatchRecord
from trainer.stages.online.rule_tool import BatchedRuleTool
from trainer.stages.online.strata.call_opening import find_call_opening
from trainer.stages.online.strata.trainer import StratifiedIFPOTrainer
from trainer.tokens.chat_template import template_messages

_KINDS = (*KINDS, None)


class OnlineIFPOTrainer(StratifiedIFPOTrainer):
    """`StratifiedIFPOTrainer` that consults through a `BatchedRuleTool`, and logs the metrics of
    `batch_metrics`.

    The model sees the tool exactly as the rule service offers it, not a schema derived from a function.
    Columns of the dataset: `prompt` (messages) and `kind`, besides those that the reward function takes.
    """

    def __init__(self, *args: Any, rule_tool: BatchedRuleTool, **kwargs: Any) -> None:
        super().__init__(*args, tools=[rule_tool.as_tool()], **kwargs)
        self._add_turn_ends()
        self.rule_tool = rule_tool
        self._batches = {"train": BatchRecord(), "eval": BatchRecord()}
        self._safe: Any = None  # (N,) outcomes of harmful prompts in the latest batch
        self.tools = [rule_tool.tool]
        if self.args.forced_consult + self.args.forced_direct:
            self.opening = find_call_opening(
                self._tokenizer, rule_tool.tool, self.chat_template, self.chat_template_kwargs
            )

    def _score_batch(self, inputs: Any) -> Output:
        self.rule_tool.clear()
        if any(message.get("tool_calls") for row in inputs for message in row["prompt"]):
            inputs = [{**row, "prompt": self._as_template_messages(row["prompt"])} for row in inputs]
        return super()._score_batch(inputs)

    def _as_template_messages(self, messages: list[Message]) -> list[Message]:
        """Prepares a given history with calls for the chat template; Arrow filled its fields with null."""
        template = self.chat_template or self._tokenizer.chat_template
        return template_messages(self._tokenizer, messages, template)

    def _generate_single_turn(self, prompt_ids: Any, *args: Any, **kwargs: Any) -> Any:
        """Generates one turn of all episodes, and starts every consultation that it requests."""
        completion_ids, logprobs = super()._generate_single_turn(prompt_ids, *args, **kwargs)
        for prompt, ids in zip(prompt_ids, completion_ids, strict=True):
            message = parse_response(self._tokenizer, ids, prefix=prompt, tools=self.tools) if ids else {}
            for call in message.get("tool_calls") or []:
                function = call.get("function") or {}
                if function.get("name") == RULE_TOOL and isinstance(function.get("arguments"), dict):
                    self.rule_tool.start(function["arguments"])
        return completion_ids, logprobs

    def _episode_advantages(self, inputs: Any) -> Any:
        advantages = super()._episode_advantages(inputs)
        assert self._gathered is not None
        rewards, consulted = (tensor.cpu().numpy() for tensor in self._gathered)
        mode = "train" if self.model.training else "eval"
        size = self.num_generations if mode == "train" else self.num_generations_eval
        numbers = [_KINDS.index(row["kind"]) for row in inputs]
        kinds = self.accelerator.gather(self._gathered[0].new_tensor(numbers)).long().tolist()
        groups = np.arange(len(rewards)) // size
        rated = ~np.isnan(rewards)
        weights = np.zeros(len(rewards))
        weights[rated] = inverse_frequency_weights(
            consulted[rated],
            groups[rated],
            alpha=self._alpha,
            w_max=self.args.w_max,
            frequency=self.args.frequency,
        )
        free, self._safe = self._is_free(len(rewards)), self._gather_safe(inputs)
        names = [_KINDS[kind] for kind in kinds]
        self._batches[mode].add(names, consulted, rewards, groups, weights, free, self._safe)
        failures = self.accelerator.reduce(self._gathered[0].new_tensor(float(self.rule_tool.failures)))
        self._metrics[mode]["ifpo/rules_unavailable"] = [failures.item()]  # a total, not a mean
        return advantages

    def _gather_safe(self, inputs: Any) -> Any:
        """Returns the (N,) outcomes of the episodes of harmful prompts, NaN elsewhere or if not known."""
        assert self._gathered is not None
        outcomes = getattr(self.reward_funcs[0], "outcomes", [None] * len(inputs))
        local = [
            np.nan if row["kind"] != "harmful" or outcome is None else float(outcome)
            for row, outcome in zip(inputs, outcomes, strict=True)
        ]
        return self.accelerator.gather(self._gathered[0].new_tensor(local)).cpu().numpy()

    def _watched_rate(self, inputs: Any) -> float | None:
        """Returns the rate of the free episodes of harmful prompts that `harmful_floor` is about; None if
        there are none, or if `floor_prompts` are measured instead."""
        if self.eval_dataset is not None:
            return None
        assert self._gathered is not None
        assert self.multiplier is not None
        if self.multiplier.watched == "safe":
            safe = self._safe[self._is_free(len(self._safe)) & ~np.isnan(self._safe)]
            return float(safe.mean()) if len(safe) else None
        harmful = self._gathered[0].new_tensor([float(row["kind"] == "harmful") for row in inputs])
        harmful = self.accelerator.gather(harmful).bool().cpu().numpy()
        consulted = self._gathered[1].cpu().numpy()[harmful & self._is_free(len(harmful))]
        return float(consulted.mean()) if len(consulted) else None

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        mode = self._mode
        # The last batch of an evaluation on several processes is filled up with episodes of the first one.
        evaluated = len(self.eval_dataset) * self.num_generations_eval if mode == "eval" else None
        for name, value in self._batches[mode].metrics(evaluated).items():
            self._metrics[mode][name] = [value]
        super().log(logs, start_time)
