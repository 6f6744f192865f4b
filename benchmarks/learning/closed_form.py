"""Compares closed forms of the expected update with enumeration and with the trainer's gradient.

    python -m benchmarks.learning.closed_form [--json]

Let p be the probability of consulting, D the gain of consulting over answering directly, and G the group
size. Without scaling, clipping or a bound on the weights, the mean gradient on the logit of the decision is

    GRPO                 (G - 1) / G * p (1 - p) * D
    IFPO                 D / 4 * (1 - p^G - (1 - p)^G)
    IFPO, stratified     D / 4 * p (1 - p) / (q_c q_d),   q the shares of the modes in a stratified group

`enumeration` sums over all patterns of modes in float64. `trainer` passes the same patterns to `IFPOTrainer`,
and so to TRL's loss, with a policy of one logit whose reply is one token, and reads the gradient of that
logit (float32). It does not cover the stratified form, whose ratios are checked by enumeration only.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import math
import sys
import tempfile
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from trainer.ifpo import decision_ratios, ifpo_advantages

PROBABILITIES = (0.05, 0.5, 0.9, 0.97, 0.99)
SIZES = (2, 4, 8)
REWARDS = {"harmful": (0.95, 0.55), "harmless": (0.80, 0.92)}  # consult, direct
CONSULT, DIRECT = "<tool_call>consult_safety_rules", "direct"


@dataclass(frozen=True)
class Row:
    """A setting, its closed form, and the same value by enumeration and by the trainer."""

    method: str
    size: int
    p: float
    gap: float
    closed_form: float
    enumeration: float
    trainer: float | None


def closed_form(method: str, size: int, p: float, gap: float) -> float:
    """Returns the closed form. Stratified groups force a quarter of the episodes into each mode."""
    if method == "GRPO":
        return (size - 1) / size * p * (1 - p) * gap
    if method == "IFPO":
        return gap / 4 * (1 - p**size - (1 - p) ** size)
    forced = size // 4
    shares = [((size - 2 * forced) * probability + forced) / size for probability in (p, 1 - p)]
    return gap / 4 * p * (1 - p) / (shares[0] * shares[1])


def enumeration(method: str, size: int, p: float, consult: float, direct: float) -> float:
    """Returns the mean gradient over all patterns of modes, with the advantages and ratios of
    `trainer.ifpo`."""
    forced = size // 4 if method == "IFPO, stratified" else 0
    free = size - 2 * forced
    total = 0.0
    for pattern in itertools.product((0, 1), repeat=free):
        modes = np.array([*pattern, *[1] * forced, *[0] * forced])
        advantages = ifpo_advantages(
            np.where(modes == 1, consult, direct),
            modes,
            np.zeros(size),
            alpha=0.0 if method == "GRPO" else 1.0,
            w_max=math.inf,
            scale_rewards="none",
        )
        ratios = decision_ratios(
            np.where(modes == 1, p, 1 - p), modes, np.arange(size) >= free, np.zeros(size)
        )
        probability = math.prod(p if mode else 1 - p for mode in pattern)
        total += probability * float(np.mean(ratios * advantages * (modes - p)))
    return total


class OneLogitTrainer:
    """Runs `IFPOTrainer` on a policy with a single parameter and chosen patterns of modes.

    Args:
        size: group size.
        alpha: exponent of the mode weights; 0 is GRPO.
        folder: output folder of the trainer.
    """

    def __init__(self, size: int, alpha: float, folder: str) -> None:
        import datasets

        from trainer.stages.config import IFPOConfig
        from trainer.stages.ifpo_trainer import IFPOTrainer

        self.size = size
        self.rewards: list[float] = []
        self.trainer = IFPOTrainer(
            model=_policy(),
            reward_funcs=lambda completions, **_: self.rewards,
            processing_class=_tokenizer(),
            args=IFPOConfig(
                output_dir=folder,
                per_device_train_batch_size=size,
                num_generations=size,
                max_completion_length=1,
                loss_type="grpo",
                scale_rewards="none",
                alpha=alpha,
                w_max=math.inf,
                use_cpu=True,
            ),
            train_dataset=datasets.Dataset.from_dict({"prompt": ["prompt"]}),
        )
        self.trainer.model.train()
        self.trainer.current_gradient_accumulation_steps = 1  # normally set by the training loop

    def expected_update(self, p: float, consult: float, direct: float) -> float:
        """Returns the mean over patterns. Patterns with the same number of consultations have equal
        gradients."""
        total = 0.0
        for consulting in range(self.size + 1):
            patterns = math.comb(self.size, consulting)
            probability = patterns * p**consulting * (1 - p) ** (self.size - consulting)
            total += probability * self._gradient(consulting, p, consult, direct)
        return total

    def _gradient(self, consulting: int, p: float, consult: float, direct: float) -> float:
        texts = [CONSULT] * consulting + [DIRECT] * (self.size - consulting)
        self.rewards = [consult] * consulting + [direct] * (self.size - consulting)
        tokens = self.trainer.processing_class
        self.trainer._generate = lambda prompts: (
            [tokens.encode(prompt) for prompt in prompts],
            [tokens.encode(text) for text in texts],
            None, texts, None, {}, None, None,
        )  # fmt: skip
        head = self.trainer.model.head.weight  # (5, 1)
        head.data = head.new_tensor([-1e4, -1e4, math.log(p / (1 - p)), 0.0, -1e4])[:, None]
        head.grad = None
        batch = self.trainer._generate_and_score_completions([{"prompt": "prompt"}] * self.size)
        self.trainer._compute_loss(self.trainer.model, batch).backward()
        return -float(head.grad[2])


def _policy() -> Any:
    """Returns a causal model with two possible next tokens: its logits are always (theta, 0).

    TRL requires a body and a head: the body outputs 1 at every position, and the head has one weight per
    token. `theta` is the head's weight for consulting.
    """
    import torch
    from transformers import GenerationConfig, LlamaConfig, PreTrainedModel
    from transformers.modeling_outputs import BaseModelOutput, CausalLMOutput

    class Body(torch.nn.Module):
        def forward(self, input_ids: Any, **_: Any) -> Any:
            return BaseModelOutput(last_hidden_state=torch.ones(*input_ids.shape, 1))

    class Policy(PreTrainedModel):  # type: ignore[misc]
        config_class = LlamaConfig
        base_model_prefix = "body"

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.body = Body()
            self.head = torch.nn.Linear(1, config.vocab_size, bias=False)
            self.generation_config = GenerationConfig()
            self.post_init()

        def get_output_embeddings(self) -> Any:
            return self.head

        def forward(self, input_ids: Any, **_: Any) -> Any:
            return CausalLMOutput(logits=self.head(self.body(input_ids).last_hidden_state))

    return Policy(LlamaConfig(vocab_size=5, hidden_size=8, num_hidden_layers=1, num_attention_heads=1))


def _tokenizer() -> Any:
    import tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, "<eos>": 1, CONSULT: 2, DIRECT: 3, "prompt": 4}
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<pad>"))  # noqa: S106
    model.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=model, pad_token="<pad>", eos_token="<eos>")  # noqa: S106


def compute_rows() -> list[Row]:
    """Computes a row for every method, group size, probability and kind of prompt."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for method, size in itertools.product(("GRPO", "IFPO", "IFPO, stratified"), SIZES):
            if method == "IFPO, stratified" and size < 4:
                continue  # no episode of it would be forced
            policy = (
                None if "stratified" in method else OneLogitTrainer(size, float(method == "IFPO"), folder)
            )
            for p, (consult, direct) in itertools.product(PROBABILITIES, REWARDS.values()):
                found.append(
                    Row(
                        method,
                        size,
                        p,
                        round(consult - direct, 3),
                        closed_form(method, size, p, consult - direct),
                        enumeration(method, size, p, consult, direct),
                        policy.expected_update(p, consult, direct) if policy else None,
                    )
                )
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print every row as JSON")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    rows = compute_rows()
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
        return 0
    table = Table("method", "G", "p", "closed form, D = -.12", "enumeration", "trainer")
    for row in rows:
        if row.gap < 0:
            table.add_row(
                row.method,
                str(row.size),
                f"{row.p:.2f}",
                f"{row.closed_form:+.6f}",
                f"{row.enumeration:+.6f}",
                "" if row.trainer is None else f"{row.trainer:+.6f}",
            )
    Console().print(table)
    print(f"largest difference, enumeration: {max(abs(r.enumeration - r.closed_form) for r in rows):.1e}")
    print(
        "largest difference, trainer:     "
        f"{max(abs(r.trainer - r.closed_form) for r in rows if r.trainer is not None):.1e}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
