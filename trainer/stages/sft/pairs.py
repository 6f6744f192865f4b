"""Trains on pairs: the same prompt under a rule to answer and under a rule to decline, in one step.

The two episodes of a pair differ only in the rule's text, so a step teaches the model to read it. Only the
beginning of the last reply, where the model decides, contributes to the loss. Training uses a LoRA adapter on
the top layers, and merges it at the end.

    python -m trainer.stages.sft.pairs --model runs/sft/merged --demonstrations runs/edited-rules.jsonl \\
        --out runs/follows-rules
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agent import Episode, read_log
from evaluation.runtime import write_atomic
from trainer.stages.model_io import adapter_config
from trainer.tokens.chat_template import template_messages

Pair = tuple[Episode, Episode]


@dataclass(frozen=True)
class PairSettings:
    """Settings of the training; the defaults are those of `benchmarks/evaluation`."""

    steps: int = 50
    pairs_a_step: int = 3
    learning_rate: float = 1e-3
    lora_rank: int = 16
    lora_layers: int = 16
    decided_within: int = 12
    """Number of tokens at the beginning of the last reply that contribute to the loss."""
    held_out: int = 8
    """Number of pairs that are measured and never trained on."""
    seed: int = 0


def find_pairs(episodes: list[Episode]) -> list[Pair]:
    """Finds the pairs that `edited_rules` wrote, by prompt."""
    by_prompt: dict[str, dict[str, Episode]] = {}
    for episode in episodes:
        for stance in ("answer", "decline"):
            if episode.id.endswith(f"-{stance}"):
                by_prompt.setdefault(episode.prompt, {})[stance] = episode
    return [(pair["answer"], pair["decline"]) for pair in by_prompt.values() if len(pair) == 2]


def train_on_pairs(model_folder: Path, pairs: list[Pair], out: Path, settings: PairSettings) -> None:
    """Trains, and writes to `out` a plain model folder and `pairs.json`, with the measurements."""
    import torch
    from transformers import AutoTokenizer

    torch.manual_seed(settings.seed)
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = _add_adapter(model_folder, settings)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=0.0)
    rng = random.Random(settings.seed)  # noqa: S311
    order = rng.sample(pairs, len(pairs))
    held_out, rest = order[: settings.held_out], order[settings.held_out :]
    queue: list[Pair] = []
    measurements, started = [], time.perf_counter()
    for step in range(1, settings.steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * _schedule(step, settings.steps)
        if len(queue) < settings.pairs_a_step:
            queue += rng.sample(rest, len(rest))
        batch = [_tokenize(tokenizer, e) for _ in range(settings.pairs_a_step) for e in queue.pop()]
        loss = _loss(model, batch, settings.decided_within)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 10 == 0 or step == settings.steps:
            refusals = _refusal_probabilities(model, tokenizer, held_out)
            measurements.append({"step": step, "loss": round(float(loss.detach()), 3), **refusals})
            seconds = time.perf_counter() - started
            print(
                f"pairs: step {step}/{settings.steps}, {seconds:.0f} s, {measurements[-1]}", file=sys.stderr
            )
    model.merge_and_unload().save_pretrained(out)
    tokenizer.save_pretrained(out)
    record = {"settings": asdict(settings), "pairs": len(rest), "watched": measurements}
    write_atomic(out / "pairs.json", json.dumps(record, indent=2) + "\n", private=False)


def _add_adapter(model_folder: Path, settings: PairSettings) -> Any:
    import torch
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    base: Any = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    return get_peft_model(base, adapter_config(model_folder, settings.lora_rank, settings.lora_layers))


def _schedule(step: int, steps: int) -> float:
    """Returns the factor of the learning rate: a short warm-up, then a cosine to a tenth."""
    return min(1.0, step / 5) * (0.1 + 0.45 * (1 + math.cos(math.pi * step / steps)))


def _tokenize(tokenizer: Any, episode: Episode) -> tuple[list[int], int]:
    """Returns the tokens of an episode, and the position where its last reply begins."""
    messages = template_messages(tokenizer, episode.messages, tokenizer.chat_template)
    whole = tokenizer.apply_chat_template(messages, tools=episode.tools, return_dict=False)
    prompt = tokenizer.apply_chat_template(
        messages[:-1], tools=episode.tools, add_generation_prompt=True, return_dict=False
    )
    return whole, len(prompt)


def _loss(model: Any, batch: list[tuple[list[int], int]], reply_tokens: int) -> Any:
    """Mean cross-entropy over the first tokens of the last replies, in bfloat16 except for the sum."""
    import torch

    longest = max(len(ids) for ids, _ in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.long)  # (B, T)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for row, (tokens, start) in enumerate(batch):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, : len(tokens)] = 1
        reply = torch.tensor(tokens[start : start + reply_tokens])
        labels[row, start : start + len(reply)] = reply
    with torch.autocast("cpu", torch.bfloat16):
        causal = model.base_model.model
        hidden = causal.model(ids, attention_mask=mask).last_hidden_state  # (B, T, D)
        scored = labels[:, 1:] != -100
        logits = causal.lm_head(hidden[:, :-1][scored])  # (S, V)
    return torch.nn.functional.cross_entropy(logits.float(), labels[:, 1:][scored])


def _refusal_probabilities(model: Any, tokenizer: Any, pairs: list[Pair]) -> dict[str, list[float]]:
    """Returns the probability that each reply begins with "I", as a refusal does, under each stance."""
    import torch

    first = tokenizer("I", add_special_tokens=False)["input_ids"][0]
    probabilities: dict[str, list[float]] = {"under answer": [], "under decline": []}
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for pair in pairs:
            for name, episode in zip(probabilities, pair, strict=True):
                tokens, start = _tokenize(tokenizer, episode)
                logits = model(torch.tensor([tokens[:start]])).logits[0, -1].float()
                probabilities[name].append(round(float(logits.softmax(-1)[first]), 2))
    return probabilities


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="folder of the model to start from")
    parser.add_argument("--demonstrations", type=Path, required=True, help="log written by edited_rules")
    parser.add_argument("--out", type=Path, required=True, help="folder of the trained model")
    parser.add_argument("--steps", type=int, default=PairSettings.steps)
    options = parser.parse_args()
    pairs = find_pairs(read_log(options.demonstrations).episodes)
    if len(pairs) <= PairSettings.held_out:
        sys.exit(
            f"{options.demonstrations} holds {len(pairs)} pairs, but needs more than "
            f"{PairSettings.held_out}: make more with edited_rules"
        )
    train_on_pairs(options.model, pairs, options.out, PairSettings(steps=options.steps))


if __name__ == "__main__":
    main()
