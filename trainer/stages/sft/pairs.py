"""Train on pairs: the same prompt under a rule that says to answer and one that says to decline, in one step.

What differs within a pair is the rule's text alone, so what the step teaches is to read it. Only the
beginning of the last reply carries loss: there the model decides. Low-rank adapters on the top layers,
merged at the end.

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

Pair = tuple[Episode, Episode]


@dataclass(frozen=True)
class PairSettings:
    """What the training depends on; the defaults are those of `benchmarks/evaluation`."""

    steps: int = 50
    pairs_a_step: int = 3
    learning_rate: float = 1e-3
    lora_rank: int = 16
    lora_layers: int = 16
    decided_within: int = 12
    """Tokens of the last reply that carry loss."""
    held_out: int = 8
    """Pairs that are never trained on and only watched."""
    seed: int = 0


def pairs_of(episodes: list[Episode]) -> list[Pair]:
    """The pairs that `edited_rules` made, by prompt."""
    found: dict[str, dict[str, Episode]] = {}
    for episode in episodes:
        for stance in ("answer", "decline"):
            if episode.id.endswith(f"-{stance}"):
                found.setdefault(episode.prompt, {})[stance] = episode
    return [(pair["answer"], pair["decline"]) for pair in found.values() if len(pair) == 2]


def train_on_pairs(model_folder: Path, pairs: list[Pair], out: Path, settings: PairSettings) -> None:
    """Train, and write a plain model folder to `out`, and beside it `pairs.json`, what was watched."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(settings.seed)
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    base: Any = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    layers = base.config.num_hidden_layers
    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=2 * settings.lora_rank,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        layers_to_transform=list(range(layers - settings.lora_layers, layers)),
        task_type="CAUSAL_LM",
    )
    model: Any = get_peft_model(base, config)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=0.0)
    chance = random.Random(settings.seed)  # noqa: S311
    order = chance.sample(pairs, len(pairs))
    held, rest = order[: settings.held_out], order[settings.held_out :]
    queue: list[Pair] = []
    watched, began = [], time.perf_counter()
    for step in range(1, settings.steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * _pace(step, settings.steps)
        if len(queue) < settings.pairs_a_step:
            queue += chance.sample(rest, len(rest))
        batch = [_tokens(tokenizer, e) for _ in range(settings.pairs_a_step) for e in queue.pop()]
        loss = _loss(model, batch, settings.decided_within)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 10 == 0 or step == settings.steps:
            chances = _refusing(model, tokenizer, held)
            watched.append({"step": step, "loss": round(float(loss.detach()), 3), **chances})
            seconds = time.perf_counter() - began
            print(f"pairs: step {step}/{settings.steps}, {seconds:.0f} s, {watched[-1]}", file=sys.stderr)
    merged = model.merge_and_unload()
    merged.save_pretrained(out)
    tokenizer.save_pretrained(out)
    record = {"settings": asdict(settings), "pairs": len(rest), "watched": watched}
    (out / "pairs.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _pace(step: int, steps: int) -> float:
    """A short warm-up, then a cosine to a tenth."""
    return min(1.0, step / 5) * (0.1 + 0.45 * (1 + math.cos(math.pi * step / steps)))


def _tokens(tokenizer: Any, episode: Episode) -> tuple[list[int], int]:
    """The tokens of an episode, and where its last reply begins."""
    whole = tokenizer.apply_chat_template(episode.messages, tools=episode.tools, return_dict=False)
    before = tokenizer.apply_chat_template(
        episode.messages[:-1], tools=episode.tools, add_generation_prompt=True, return_dict=False
    )
    return whole, len(before)


def _loss(model: Any, batch: list[tuple[list[int], int]], within: int) -> Any:
    """Mean cross-entropy over the first tokens of the last replies; bfloat16 but for the sum."""
    import torch

    longest = max(len(ids) for ids, _ in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.long)  # (B, T)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for row, (tokens, start) in enumerate(batch):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, : len(tokens)] = 1
        decided = torch.tensor(tokens[start : start + within])
        labels[row, start : start + len(decided)] = decided
    with torch.autocast("cpu", torch.bfloat16):
        causal = model.base_model.model
        hidden = causal.model(ids, attention_mask=mask).last_hidden_state  # (B, T, D)
        wanted = labels[:, 1:] != -100
        logits = causal.lm_head(hidden[:, :-1][wanted])  # only where there is loss
    return torch.nn.functional.cross_entropy(logits.float(), labels[:, 1:][wanted])


def _refusing(model: Any, tokenizer: Any, pairs: list[Pair]) -> dict[str, list[float]]:
    """How likely the reply begins as a refusal does ("I"), under each stance."""
    import torch

    first = tokenizer("I", add_special_tokens=False)["input_ids"][0]
    found: dict[str, list[float]] = {"under answer": [], "under decline": []}
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for pair in pairs:
            for name, episode in zip(found, pair, strict=True):
                tokens, start = _tokens(tokenizer, episode)
                logits = model(torch.tensor([tokens[:start]])).logits[0, -1].float()
                found[name].append(round(float(logits.softmax(-1)[first]), 2))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="folder of the model to start from")
    parser.add_argument("--demonstrations", type=Path, required=True, help="what edited_rules wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder of the trained model")
    parser.add_argument("--steps", type=int, default=PairSettings.steps)
    options = parser.parse_args()
    pairs = pairs_of(read_log(options.demonstrations).episodes)
    if len(pairs) <= PairSettings.held_out:
        sys.exit(f"{options.demonstrations} holds {len(pairs)} pairs, too few: make it with edited_rules")
    train_on_pairs(options.model, pairs, options.out, PairSettings(steps=options.steps))


if __name__ == "__main__":
    main()
