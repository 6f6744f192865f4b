"""Trains on pairs: the same prompt under a rule to answer and under a rule to decline, in one step.

The two episodes of a pair differ only in the rule's text, so a step teaches the model to read it. Only the
beginning of the last reply, where the model decides, contributes to the loss. A step can also repeat other
demonstrations in full, so that the model keeps deciding when to consult. Training uses a LoRA adapter on the
top layers, and merges it at the end.

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
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from agent import Episode, read_log
from evaluation.runtime import write_atomic
from trainer.stages.model_io import adapter_config
from trainer.tokens.chat_template import template_messages
from trainer.tokens.rendering import render_training_tokens

Pair = tuple[Episode, Episode]
T = TypeVar("T")
WATCH_EVERY = 20


@dataclass(frozen=True)
class PairSettings:
    """Settings of the training; the defaults are those of `benchmarks/evaluation`."""

    steps: int = 50
    pairs_a_step: int = 3
    kept_a_step: int = 0
    """Number of other demonstrations per step, which are learnt in full."""
    learning_rate: float = 1e-3
    lora_rank: int = 16
    lora_layers: int = 16
    decided_within: int = 12
    """Number of tokens at the beginning of the last reply that contribute to the loss."""
    held_out: int = 8
    """Number of pairs that are measured and never trained on."""
    seed: int = 0


class _Row(NamedTuple):
    """An episode as tokens, and the positions that contribute to the loss."""

    tokens: list[int]
    scored: list[int]


def find_pairs(episodes: list[Episode]) -> list[Pair]:
    """Finds the pairs that `edited_rules` wrote, by prompt."""
    by_prompt: dict[str, dict[str, Episode]] = {}
    for episode in episodes:
        for stance in ("answer", "decline"):
            if episode.id.endswith(f"-{stance}"):
                by_prompt.setdefault(episode.prompt, {})[stance] = episode
    return [(pair["answer"], pair["decline"]) for pair in by_prompt.values() if len(pair) == 2]


def find_others(episodes: list[Episode]) -> list[Episode]:
    """Returns the episodes that belong to no pair."""
    return [episode for episode in episodes if not episode.id.endswith(("-answer", "-decline"))]


def train_on_pairs(
    model_folder: Path, pairs: list[Pair], out: Path, settings: PairSettings, others: Sequence[Episode] = ()
) -> None:
    """Trains, and writes to `out` a plain model folder and `pairs.json`, with the measurements.

    Args:
        others: demonstrations of which each step repeats `kept_a_step`.
    """
    import torch
    from transformers import AutoTokenizer

    torch.manual_seed(settings.seed)
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = _add_adapter(model_folder, settings)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    layers = _SplitLayers(model, settings.lora_layers)
    optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=0.0)
    rng = random.Random(settings.seed)  # noqa: S311
    order = rng.sample(pairs, len(pairs))
    held_out, rest = order[: settings.held_out], order[settings.held_out :]
    pair_stream, other_stream = _endless(rest, rng), _endless(list(others), rng)
    measurements, started = [], time.perf_counter()
    for step in range(1, settings.steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * _schedule(step, settings.steps)
        pair_rows = [
            _decision_row(tokenizer, episode, settings.decided_within)
            for _ in range(settings.pairs_a_step)
            for episode in next(pair_stream)
        ]
        loss = layers.backward(pair_rows)
        if settings.kept_a_step:
            kept = [_whole_row(tokenizer, next(other_stream)) for _ in range(settings.kept_a_step)]
            loss += layers.backward(kept)
        optimizer.step()
        optimizer.zero_grad()
        if step % WATCH_EVERY == 0 or step == settings.steps:
            refusals = _refusal_probabilities(layers, tokenizer, held_out)
            measurements.append({"step": step, "loss": round(loss, 3), **refusals})
            seconds = time.perf_counter() - started
            print(
                f"pairs: step {step}/{settings.steps}, {seconds:.0f} s, {measurements[-1]}", file=sys.stderr
            )
    layers.join()
    model.merge_and_unload().save_pretrained(out)
    tokenizer.save_pretrained(out)
    record = {"settings": asdict(settings), "pairs": len(rest), "watched": measurements}
    write_atomic(out / "pairs.json", json.dumps(record, indent=2) + "\n", private=False)


def _endless(items: list[T], rng: random.Random) -> Iterator[T]:
    """Yields the items in random order, again and again."""
    while True:
        yield from rng.sample(items, len(items))


def _add_adapter(model_folder: Path, settings: PairSettings) -> Any:
    import torch
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    base: Any = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    return get_peft_model(base, adapter_config(model_folder, settings.lora_rank, settings.lora_layers))


def _schedule(step: int, steps: int) -> float:
    """Returns the factor of the learning rate: a short warm-up, then a cosine to a tenth."""
    return min(1.0, step / 5) * (0.1 + 0.45 * (1 + math.cos(math.pi * step / steps)))


def _decision_row(tokenizer: Any, episode: Episode, decided_within: int) -> _Row:
    """Returns an episode of which the beginning of the last reply is scored."""
    messages = template_messages(tokenizer, episode.messages, tokenizer.chat_template)
    whole = tokenizer.apply_chat_template(messages, tools=episode.tools, return_dict=False)
    prompt = tokenizer.apply_chat_template(
        messages[:-1], tools=episode.tools, add_generation_prompt=True, return_dict=False
    )
    return _Row(whole, list(range(len(prompt), min(len(prompt) + decided_within, len(whole)))))


def _whole_row(tokenizer: Any, episode: Episode) -> _Row:
    """Returns an episode of which everything that the model wrote is scored."""
    tokens, mask = render_training_tokens(tokenizer, episode.messages, episode.tools)
    return _Row(tokens, [position for position, written in enumerate(mask) if written])


class _SplitLayers:
    """A model divided into the layers that training does not change, and those with an adapter.

    The first part runs once for every episode. One row at a time needs no padding.

    Args:
        model: the model with its adapter; `join` undoes the division.
        adapted: number of layers with an adapter, counted from the top.
    """

    def __init__(self, model: Any, adapted: int) -> None:
        import torch

        self._causal = model.base_model.model
        body = self._causal.model
        self._all, self._norm = body.layers, body.norm
        first = max(0, len(self._all) - adapted)
        self._frozen, self._adapted = self._all[:first], self._all[first:]
        self._states: dict[tuple[int, ...], torch.Tensor] = {}

    def join(self) -> None:
        self._causal.model.layers, self._causal.model.norm = self._all, self._norm

    def logits(self, tokens: Sequence[int], positions: Sequence[int]) -> Any:
        """Returns the logits after some positions."""
        import torch

        body = self._causal.model
        key = tuple(tokens)
        if key not in self._states:
            body.layers, body.norm = self._frozen, torch.nn.Identity()
            with torch.no_grad():
                self._states[key] = body(torch.tensor([key]), use_cache=False).last_hidden_state  # (1, T, D)
        body.layers, body.norm = self._adapted, self._norm
        hidden = body(inputs_embeds=self._states[key], use_cache=False).last_hidden_state[0]  # (T, D)
        return self._causal.lm_head(hidden[list(positions)])  # (S, V)

    def backward(self, rows: list[_Row]) -> float:
        """Adds the gradients of the mean cross-entropy of the scored tokens, and returns it."""
        import torch

        count = sum(len(row.scored) for row in rows)
        total = 0.0
        for tokens, scored in rows:
            read = tokens[: scored[-1]]
            logits = self.logits(read, [position - 1 for position in scored])
            targets = torch.tensor([tokens[position] for position in scored])
            loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum") / count
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        return total


def _refusal_probabilities(layers: _SplitLayers, tokenizer: Any, pairs: list[Pair]) -> dict[str, list[float]]:
    """Returns the probability that each reply begins with "I", as a refusal does, under each stance."""
    import torch

    first = tokenizer("I", add_special_tokens=False)["input_ids"][0]
    probabilities: dict[str, list[float]] = {"under answer": [], "under decline": []}
    with torch.no_grad():
        for pair in pairs:
            for name, episode in zip(probabilities, pair, strict=True):
                row = _decision_row(tokenizer, episode, 1)
                read = row.tokens[: row.scored[0]]
                logits = layers.logits(read, [len(read) - 1])[0]
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
    parser.add_argument(
        "--kept", type=int, default=0, help="other demonstrations per step, to keep the decision to consult"
    )
    parser.add_argument("--lora-rank", type=int, default=PairSettings.lora_rank, help="rank of the adapter")
    options = parser.parse_args()
    episodes = read_log(options.demonstrations).episodes
    pairs = find_pairs(episodes)
    if len(pairs) <= PairSettings.held_out:
        sys.exit(
            f"{options.demonstrations} holds {len(pairs)} pairs, but needs more than "
            f"{PairSettings.held_out}: make more with edited_rules"
        )
    others = find_others(episodes)
    if options.kept and not others:
        sys.exit(
            f"--kept {options.kept} needs more than pairs, but {options.demonstrations} holds pairs only: "
            "omit --kept, or make the log with edited_rules, which adds others"
        )
    settings = PairSettings(steps=options.steps, kept_a_step=options.kept, lora_rank=options.lora_rank)
    train_on_pairs(options.model, pairs, options.out, settings, others)


if __name__ == "__main__":
    main()
