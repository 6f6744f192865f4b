"""What a run needs of a GPU's memory, by arithmetic.

Counted are frozen weights sharded over the trainers, an adapter with Adam, activations under checkpointing,
and vLLM's weights and cache.

An estimate to choose a machine by, not a measurement: allocators keep some memory back (`USABLE_FRACTION`),
and kernels differ. Shapes come from a model's `config.json`, or from the table of three published sizes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from trainer.errors import ConfigError

GIB = 2**30
USABLE_FRACTION = 0.90  # of a GPU's memory that tensors may use
BF16, FP32 = 2, 4  # bytes


@dataclass(frozen=True)
class Shape:
    """A dense decoder of the Llama and Qwen family."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head: int
    intermediate: int
    vocabulary: int
    tied: bool

    @property
    def parameters(self) -> int:
        """Weights in all; norms' few thousands included."""
        attention = 2 * self.hidden * self.head * (self.heads + self.kv_heads)
        layer = attention + 3 * self.hidden * self.intermediate + 2 * self.hidden
        embeddings = self.vocabulary * self.hidden * (1 if self.tied else 2)
        return self.layers * layer + embeddings + self.hidden

    def adapter(self, rank: int) -> int:
        """Parameters of LoRA on all seven projections of every layer."""
        query, key = self.heads * self.head, self.kv_heads * self.head
        sides = 2 * (self.hidden + query) + 2 * (self.hidden + key) + 3 * (self.hidden + self.intermediate)
        return self.layers * rank * sides

    @property
    def cache_bytes(self) -> int:
        """Of the key-value cache, a token, in bfloat16."""
        return 2 * self.layers * self.kv_heads * self.head * BF16


# Qwen3's dense models, from their published configurations.
SIZES = {
    "1.7B": Shape(2048, 28, 16, 8, 128, 6144, 151_936, tied=True),
    "8B": Shape(4096, 36, 32, 8, 128, 12_288, 151_936, tied=False),
    "32B": Shape(5120, 64, 64, 8, 128, 25_600, 151_936, tied=False),
}


@dataclass(frozen=True)
class Estimate:
    """Bytes on each trainer GPU by what they hold, and what a vLLM GPU has left for its cache."""

    weights: float
    adapter: float
    gathered: float
    activations: float
    logits: float
    trainer: float
    cache_tokens: int
    """Tokens of cache that all vLLM GPUs of one engine hold together; 0 where its weights do not fit."""

    def fits(self, gpu_gib: float) -> bool:
        """Whether a trainer GPU of so many GiB is enough."""
        return self.trainer <= USABLE_FRACTION * gpu_gib * GIB


def estimate(
    shape: Shape,
    *,
    trainers: int,
    vllm_gpus: int,
    gpu_gib: float = 80,
    rank: int = 16,
    rows: int = 1,
    tokens: int = 4096,
    colocated: float = 0.0,
) -> Estimate:
    """Memory of one trainer GPU and of the vLLM engine.

    Args:
        trainers: GPUs that shard the frozen weights (FSDP2); 1 keeps them whole.
        vllm_gpus: GPUs of the engine, apart from the trainers; 0 without one.
        rank: of the adapter; its weights, gradients and Adam's two moments are float32.
        rows: episodes of a forward pass on one GPU.
        tokens: of an episode, prompt and completion.
        colocated: share of each trainer GPU that a colocated vLLM takes (`vllm_gpu_memory_utilization`).
    """
    weights = shape.parameters * BF16 / trainers
    adapter = shape.adapter(rank) * 4 * FP32 / trainers
    layer = (shape.parameters - shape.vocabulary * shape.hidden * (1 if shape.tied else 2)) / shape.layers
    # While a layer runs it is whole on every GPU, and the next one is on its way.
    gathered = 2 * layer * BF16 if trainers > 1 else 0.0
    positions = rows * tokens
    # Checkpointing keeps each layer's input; one layer's insides are alive while it is computed again.
    kept = shape.layers * positions * shape.hidden * BF16
    inside = positions * (10 * shape.hidden + 3 * shape.intermediate) * BF16
    # The head scores a chunk of positions at a time; float32 logits and their gradient.
    logits = min(positions, 1024) * shape.vocabulary * 2 * FP32
    trainer = weights + adapter + gathered + kept + inside + logits + colocated * gpu_gib * GIB
    engine = colocated * gpu_gib * GIB if colocated else vllm_gpus * USABLE_FRACTION * gpu_gib * GIB
    left = engine - shape.parameters * BF16
    return Estimate(
        weights=weights,
        adapter=adapter,
        gathered=gathered,
        activations=kept + inside,
        logits=logits,
        trainer=trainer,
        cache_tokens=max(0, int(left / shape.cache_bytes)),
    )


def shape_of(model: str) -> Shape | None:
    """The shape of a model folder or of a size in the table; None where neither is known.

    Raises:
        ConfigError: the folder's `config.json` is not of this family.
    """
    path = Path(model) / "config.json"
    if not path.is_file():
        named = model.rstrip("/").upper()
        return next(
            (s for size, s in SIZES.items() if model == size or named.endswith(f"-{size.upper()}")), None
        )
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        heads = known["num_attention_heads"]
        return Shape(
            hidden=known["hidden_size"],
            layers=known["num_hidden_layers"],
            heads=heads,
            kv_heads=known.get("num_key_value_heads") or heads,
            head=known.get("head_dim") or known["hidden_size"] // heads,
            intermediate=known["intermediate_size"],
            vocabulary=known["vocab_size"],
            tied=bool(known.get("tie_word_embeddings", False)),
        )
    except KeyError as error:
        raise ConfigError(f"{path} does not say {error}, so its memory cannot be reckoned") from None
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise ConfigError(f"{path} is no model's configuration ({error}): pass another model") from None


def memory_table(gpu_gib: float = 80) -> str:
    """The three sizes on one GPU, on eight, and on three nodes of eight, as Markdown."""
    lines = [
        f"| model | machine | trainer GPU, GiB | of it weights | fits {gpu_gib:g} GiB | tokens of cache |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    machines = (
        ("1 GPU, vLLM beside it (30 %)", {"trainers": 1, "vllm_gpus": 0, "colocated": 0.3}),
        ("8 GPUs: 6 train, 2 serve", {"trainers": 6, "vllm_gpus": 2}),
        ("2 nodes of 8 train, a third serves", {"trainers": 16, "vllm_gpus": 8}),
    )
    for size, shape in SIZES.items():
        for name, machine in machines:
            made = estimate(shape, gpu_gib=gpu_gib, **machine)
            enough = made.fits(gpu_gib) and made.cache_tokens > 0
            lines.append(
                f"| {size} | {name} | {made.trainer / GIB:.1f} | {made.weights / GIB:.1f} | "
                f"{'yes' if enough else 'no'} | {made.cache_tokens // 1000} 000 |"
            )
    return "\n".join(lines)
