"""IFPO on fresh episodes: TRL's own tool loop, with the rule tool's calls in flight together.

Like `ifpo_trainer.py`, this touches private parts of TRL, and the same contract test holds them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from trl.chat_template_utils import parse_response

from agent.tools import RULE_TOOL
from evaluation.prompts import KINDS
from trainer.ifpo import inverse_frequency_weights
from trainer.stages.ifpo_trainer import IFPOTrainer, Output
from trainer.stages.online.batch_metrics import batch_metrics
from trainer.stages.online.rule_tool import BatchedRuleTool

_KINDS = (*KINDS, None)


class OnlineIFPOTrainer(IFPOTrainer):
    """`IFPOTrainer` that consults through a desk and logs what there is to watch.

    The model is shown the tool exactly as the rule service offers it, not a schema made from a function.
    Dataset columns: `prompt` (messages) and `kind`, beside what the reward function takes.
    """

    def __init__(self, *args: Any, desk: BatchedRuleTool, **kwargs: Any) -> None:
        super().__init__(*args, tools=[desk.as_tool()], **kwargs)
        self.desk = desk
        self.tools = [desk.tool]

    def _generate_and_score_completions(self, inputs: Any) -> Output:
        self.desk.forget()
        return super()._generate_and_score_completions(inputs)

    def _generate_single_turn(self, prompt_ids: Any, *args: Any, **kwargs: Any) -> Any:
        """Generate one turn of all episodes, and begin every consultation that it asks for."""
        completion_ids, logprobs = super()._generate_single_turn(prompt_ids, *args, **kwargs)
        for before, ids in zip(prompt_ids, completion_ids, strict=True):
            message = parse_response(self._tokenizer, ids, prefix=before, tools=self.tools) if ids else {}
            for call in message.get("tool_calls") or []:
                function = call.get("function") or {}
                if function.get("name") == RULE_TOOL and isinstance(function.get("arguments"), dict):
                    self.desk.begin(function["arguments"])
        return completion_ids, logprobs

    def _episode_advantages(self, inputs: Any) -> Any:
        advantages = super()._episode_advantages(inputs)
        assert self._gathered is not None
        rewards, consulted = (each.cpu().numpy() for each in self._gathered)
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
            alpha=self.args.alpha,
            w_max=self.args.w_max,
            frequency=self.args.frequency,
        )
        metrics = self._metrics[mode]
        made = batch_metrics([_KINDS[kind] for kind in kinds], consulted, rewards, groups, weights)
        for name, value in made.items():
            if name not in ("ifpo/consult_rate", "ifpo/largest_weight", "ifpo/unscored"):  # logged already
                metrics[name].append(value)
        failures = self.accelerator.reduce(self._gathered[0].new_tensor(float(self.desk.failures)))
        metrics["ifpo/rules_unavailable"].append(failures.item())
        return advantages
