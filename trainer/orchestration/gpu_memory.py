"""Estimates the GPU memory of a run from the model's shape.

Counts weights sharded over the trainers, what Adam needs for those that are trained (an adapter or all),
activations under checkpointing, and vLLM's weights and cache. The result is for choosing a machine, not a
measurement: allocators reserve memory (`USABLE_FRACTION`), and kernels differ. Shapes come from a model's
`config.json`, or from a table of three published sizes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from trainer.errors import ConfigError

GIB = 2**30
USABLE_FRACTION = 0.90
"""Share of a GPU's memory that tensors can use."""
BF16, FP32 = 2, 4  # bytes


@dataclass(frozen=True)
class ModelShape:
    """Shape of a decoder of the Llama and Qwen families."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    intermediate: int
    vocabulary: int
    tied: bool
    experts: int = 0
    """Number of experts in each layer of a mixture, of size `intermediate`; 0 for a dense model."""

    @property
    def parameters(self) -> int:
        """Number of weights, including those of the norms."""
        attention = 2 * self.hidden * self.head_size * (self.heads + self.kv_heads)
        feed_forward = 3 * self.hidden * self.intermediate * (self.experts or 1)
        layer = attention + feed_forward + self.hidden * self.experts + 2 * self.hidden
        return self.layers * layer + self.embedding_parameters + self.hidden

    @property
    def embedding_parameters(self) -> int:
        """Number of weights of the input and output embeddings."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    def adapter_parameters(self, rank: int) -> int:
        """Returns the number of LoRA weights on all projections of every layer, but not on experts."""
        query, key = self.heads * self.head_size, self.kv_heads * self.head_size
        sides = 2 * (self.hidden + query) + 2 * (self.hidden + key)
        sides += 0 if self.experts else 3 * (self.hidden + self.intermediate)
        return self.layers * rank * sides

    @property
    def cache_bytes_per_token(self) -> int:
        """Size of the key-value cache of one token, in bfloat16."""
        return 2 * self.layers * self.kv_heads * self.head_size * BF16


# Qwen3's dense models, from their published configurations.
SIZES = {
    "1.7B": ModelShape(2048, 28, 16, 8, 128, 6144, 151_936, tied=True),
    "8B": ModelShape(4096, 36, 32, 8, 128, 12_288, 151_936, tied=False),
    "32B": ModelShape(5120, 64, 64, 8, 128, 25_600, 151_936, tied=False),
}


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on each trainer GPU by content, and the cache that the vLLM GPUs have left."""

    weights: float
    """Weights, frozen in bfloat16 or trained in float32, with those of the reference model if there is
    one."""
    adapter: float
    """Adapter with its gradient and Adam's two moments; 0 if there is none."""
    optimizer: float
    """Gradient and Adam's two moments of all weights; 0 with an adapter."""
    gathered: float
    """Copies of weights and gradients that a forward or backward pass makes."""
    activations: float
    logits: float
    trainer: float
    """Total on a trainer GPU."""
    cache_tokens: int
    """Tokens of cache over all vLLM GPUs of one engine; 0 if the weights do not fit."""

    def fits(self, gpu_gib: float) -> bool:
        """Returns whether a trainer GPU with `gpu_gib` GiB is large enough."""
        return self.trainer <= USABLE_FRACTION * gpu_gib * GIB


def estimate_gpu_memory(
    shape: ModelShape,
    *,
    trainers: int,
    vllm_gpus: int,
    gpu_gib: float = 80,
    rank: int = 16,
    reference: bool = False,
    replicas: bool = False,
    rows: int = 1,
    tokens: int = 4096,
    colocated: float = 0.0,
) -> MemoryEstimate:
    """Estimates the memory of one trainer GPU and of the vLLM engine.

    Args:
        trainers: number of GPUs that shard weights, gradients and optimizer (FSDP2); 1 does not shard them.
        vllm_gpus: number of GPUs reserved for the engine; 0 for no engine.
        rank: LoRA rank; 0 trains all weights. Trained weights, their gradients and Adam's two moments are
            float32.
        reference: whether the loss needs the starting model (`beta` above 0): a second model in float32 if
            all weights are trained. With an adapter, it is the model without the adapter.
        replicas: whether several trainers hold the whole model each, and reduce their gradients (DDP).
        rows: episodes per forward pass on one GPU.
        tokens: tokens of an episode, prompt and completion.
        colocated: share of each trainer GPU that a colocated vLLM takes (`vllm_gpu_memory_utilization`).
    """
    full = rank == 0
    weights = shape.parameters * (FP32 * (1 + reference) if full else BF16) / trainers
    adapter = shape.adapter_parameters(rank) * 4 * FP32 / trainers
    optimizer = shape.parameters * 3 * FP32 / trainers if full else 0.0
    gathered = _gathered_bytes(shape, trainers, full)
    if full and replicas:
        gathered += shape.parameters * FP32  # buckets in which gradients are reduced
    positions = rows * tokens
    # Checkpointing stores the input of each layer. One layer's intermediates exist while it is recomputed.
    layer_inputs = shape.layers * positions * shape.hidden * BF16
    intermediates = positions * (10 * shape.hidden + 3 * shape.intermediate) * BF16
    # The head scores a chunk of positions at a time: float32 logits and their gradient.
    logits = min(positions, 1024) * shape.vocabulary * 2 * FP32
    engine_share = colocated * gpu_gib * GIB
    trainer = weights + adapter + optimizer + gathered + layer_inputs + intermediates + logits + engine_share
    engine = engine_share if colocated else vllm_gpus * USABLE_FRACTION * gpu_gib * GIB
    cache = engine - shape.parameters * BF16
    return MemoryEstimate(
        weights=weights,
        adapter=adapter,
        optimizer=optimizer,
        gathered=gathered,
        activations=layer_inputs + intermediates,
        logits=logits,
        trainer=trainer,
        cache_tokens=max(0, int(cache / shape.cache_bytes_per_token)),
    )


def _gathered_bytes(shape: ModelShape, trainers: int, full: bool) -> float:
    """Returns the size of the copies of weights that a pass makes on one GPU."""
    layer = (shape.parameters - shape.embedding_parameters) / shape.layers
    if trainers == 1:
        # Mixed precision caches a bfloat16 copy of every float32 weight for the pass.
        return shape.parameters * BF16 if full else 0.0
    # FSDP gathers the running layer in full on every GPU, and prefetches the next one.
    gathered = 2 * layer * BF16
    # The gradients of a layer are whole until they are reduced. The embeddings stay gathered during the pass.
    return 2 * gathered + 2 * shape.embedding_parameters * BF16 if full else gathered


def model_shape(model: str) -> ModelShape | None:
    """Returns the shape of a model folder or of a size in `SIZES`; None if unknown.

    Raises:
        ConfigError: the folder's `config.json` is not from a supported model family.
    """
    path = Path(model) / "config.json"
    if not path.is_file():
        name = model.rstrip("/").upper()
        return next(
            (s for size, s in SIZES.items() if model == size or name.endswith(f"-{size.upper()}")), None
        )
    try:
        whole = json.loads(path.read_text(encoding="utf-8"))
        config = whole.get("text_config") or whole  # the language model of a model with vision
        heads = config["num_attention_heads"]
        counts = [config.get(name) for name in ("num_experts", "num_local_experts", "n_routed_experts")]
        experts = next((count for count in counts if count), 0)
        return ModelShape(
            hidden=config["hidden_size"],
            layers=config["num_hidden_layers"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_size=config.get("head_dim") or config["hidden_size"] // heads,
            intermediate=(experts and config.get("moe_intermediate_size")) or config["intermediate_size"],
            vocabulary=config["vocab_size"],
            tied=bool(config.get("tie_word_embeddings", whole.get("tie_word_embeddings", False))),
            experts=experts,
        )
    except KeyError as error:
        raise ConfigError(f"{path} has no {error}, so its memory cannot be estimated") from None
    except (ValueError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise ConfigError(f"{path} is not a model configuration ({error}): pass another model") from None


def memory_table(gpu_gib: float = 80, rank: int = 16) -> str:
    """Returns a Markdown table of the three sizes on one GPU, on eight, and on three nodes of eight.

    Args:
        rank: LoRA rank; 0 trains all weights.
    """
    lines = [
        f"| model | machine | trainer GPU, GiB | of which weights | fits {gpu_gib:g} GiB | KV-cache tokens |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    machines = (
        ("1 GPU, vLLM colocated (30 %)", {"trainers": 1, "vllm_gpus": 0, "colocated": 0.3}),
        ("8 GPUs: 6 train, 2 serve", {"trainers": 6, "vllm_gpus": 2}),
        ("2 nodes of 8 train, a third node serves", {"trainers": 16, "vllm_gpus": 8}),
    )
    for size, shape in SIZES.items():
        for name, options in machines:
            memory = estimate_gpu_memory(shape, gpu_gib=gpu_gib, rank=rank, **options)
            enough = memory.fits(gpu_gib) and memory.cache_tokens > 0
            lines.append(
                f"| {size} | {name} | {memory.trainer / GIB:.1f} | {memory.weights / GIB:.1f} | "
                f"{'yes' if enough else 'no'} | {memory.cache_tokens // 1000 * 1000:,} |"
            )
    return "\n".join(lines)
