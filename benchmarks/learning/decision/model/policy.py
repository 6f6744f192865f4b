"""A language model reduced to its first decision: whether the reply begins with a consultation.

All prompts share a prefix (system text and tool), and the layers below the adapter never change. The hidden
states that enter the adapted layers are therefore computed once and cached. A pass concatenates the shared
prefix and the suffixes of all prompts to one sequence with tree attention: each suffix attends to the prefix
and to itself. This needs no padding, computes the prefix once, and passes gradients through all of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer.stages import model_io
from trainer.stages.sft.stage import DEMONSTRATIONS

TOOL_CALL = "<tool_call>"
CACHE_FORMAT = 1
MAX_TOKENS_PER_PASS = 768
"""Maximum number of suffix tokens in a pass without gradients."""


@dataclass(frozen=True)
class EncodedPrompts:
    """N prompts as hidden states that enter the first adapted layer."""

    prefix: Tensor
    """(P, H), shared by all prompts."""
    suffixes: list[Tensor]
    """N tensors (T, H)."""

    def select(self, indices: Sequence[int]) -> EncodedPrompts:
        """Returns the prompts with these indices."""
        return EncodedPrompts(self.prefix, [self.suffixes[index] for index in indices])


class DecisionPolicy:
    """A causal model with a new LoRA adapter on its top layers, which predicts the first token of a reply.

    Args:
        folder: model folder with a chat template that supports tools.
        layers: number of top layers with an adapter.
        rank: LoRA rank.
        bfloat16: use bfloat16 in passes with gradients. Other passes always use float32.
    """

    def __init__(self, folder: Path, layers: int, rank: int, bfloat16: bool = False) -> None:
        import transformers

        from trainer.stages import silence_libraries

        self.folder, self.bfloat16 = folder, bfloat16
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.consult_token: int = self.tokenizer(TOOL_CALL, add_special_tokens=False)["input_ids"][0]
        self.system, self.tools = _context()
        with silence_libraries():
            self.model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.first_adapted = len(self.model.model.layers) - layers
        self._adapt(layers, rank)

    def _adapt(self, layers: int, rank: int) -> None:
        import peft

        from trainer.stages import silence_libraries

        with silence_libraries():
            peft.get_peft_model(self.model, model_io.adapter_config(self.folder, rank, layers))

    def reset(self, seed: int) -> None:
        """Resets the adapter to its initial values, with which it has no effect."""
        torch.manual_seed(seed)
        for module in self.model.modules():
            if hasattr(module, "reset_lora_parameters"):
                module.reset_lora_parameters("default", True)

    @property
    def trainable(self) -> list[Tensor]:
        """The parameters of the adapter."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def encode(self, prompts: Sequence[str], cache: Path) -> EncodedPrompts:
        """Runs prompts through the layers below the adapter, or reads the result from `cache`."""
        ids = [self._tokens(prompt) for prompt in prompts]
        shared = next(index for index, tokens in enumerate(zip(*ids, strict=False)) if len(set(tokens)) > 1)
        digest = hashlib.sha256(json.dumps([CACHE_FORMAT, self.first_adapted, shared, ids]).encode())
        digest.update((self.folder.parent / "run.json").read_bytes())
        file = cache / f"hidden-{digest.hexdigest()[:16]}.pt"
        if file.is_file():
            cached = torch.load(file, weights_only=True)
            return EncodedPrompts(cached["beginning"], list(cached["ends"]))
        prefix = torch.tensor(ids[0][:shared])
        suffixes = [torch.tensor(each[shared:]) for each in ids]
        embed = self.model.model.embed_tokens
        encoded: EncodedPrompts | None = None
        states: list[Tensor] = []
        with torch.no_grad():
            for chosen in _split_into_passes(suffixes):
                words = EncodedPrompts(embed(prefix), [embed(suffixes[index]) for index in chosen])
                x, positions, mask, _ = _build_tree(words)
                x = self._run(self.model.model.layers[: self.first_adapted], x, positions, mask)[0]
                lengths = [len(suffixes[index]) for index in chosen]
                states += [piece.clone() for piece in torch.split(x[shared:], lengths)]
                encoded = EncodedPrompts(x[:shared].clone(), states)
        assert encoded is not None
        cache.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".tmp")
        torch.save({"beginning": encoded.prefix, "ends": encoded.suffixes}, partial)
        partial.replace(file)
        return encoded

    def log_probabilities(self, encoded: EncodedPrompts) -> Tensor:
        """Returns (N, V) log-probabilities of the first token of each reply, float32, with gradients."""
        precision = torch.autocast("cpu", torch.bfloat16) if self.bfloat16 else contextlib.nullcontext()
        x, positions, mask, last = _build_tree(encoded)
        with precision:
            x = self._decide(x, positions, mask, last)
        logits: Tensor = self.model.lm_head(self.model.model.norm(x.float()))
        return logits.log_softmax(-1)

    def consult_probabilities(self, encoded: EncodedPrompts) -> Tensor:
        """Returns (N,) the exact probability that each reply begins with a consultation, float32."""
        probabilities = []
        with torch.no_grad():
            for chosen in _split_into_passes(encoded.suffixes):
                x, positions, mask, last = _build_tree(encoded.select(chosen))
                logits = self.model.lm_head(self.model.model.norm(self._decide(x, positions, mask, last)))
                probabilities.append(logits.softmax(-1)[:, self.consult_token])
        return torch.cat(probabilities)

    def _decide(self, x: Tensor, positions: Tensor, mask: Tensor, last: Tensor) -> Tensor:
        """Returns (N, H) the output of the adapted layers at the last position of each prompt.

        The top layer computes keys and values at all positions, but everything else only at the last ones,
        which takes a fifth of the time.
        """
        from torch.nn.functional import scaled_dot_product_attention
        from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

        *lower, top = self.model.model.layers[self.first_adapted :]
        x = self._run(lower, x, positions, mask)
        attention = top.self_attn
        cos, sin = self.model.model.rotary_emb(x, positions)
        normalized = top.input_layernorm(x)

        def heads(states: Tensor) -> Tensor:
            return states.view(1, states.shape[1], -1, attention.head_dim).transpose(1, 2)

        query = heads(attention.q_proj(normalized[:, last]))
        query, _ = apply_rotary_pos_emb(query, query, cos[:, last], sin[:, last])
        key, _ = apply_rotary_pos_emb(*[heads(attention.k_proj(normalized))] * 2, cos, sin)
        attended = scaled_dot_product_attention(
            query, key, heads(attention.v_proj(normalized)), attn_mask=mask[:, :, last], enable_gqa=True
        )
        x = x[:, last] + attention.o_proj(attended.transpose(1, 2).flatten(2))
        x = x + top.mlp(top.post_attention_layernorm(x))
        return x[0]

    def _run(self, layers: Any, x: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        rotary = self.model.model.rotary_emb(x, positions)
        for layer in layers:
            x = layer(x, attention_mask=mask, position_ids=positions, position_embeddings=rotary)
        return x

    def _tokens(self, prompt: str) -> list[int]:
        messages = [self.system, {"role": "user", "content": prompt}]
        ids: list[int] = self.tokenizer.apply_chat_template(
            messages, tools=self.tools, add_generation_prompt=True, return_dict=False
        )
        return ids


def _context() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns the system message and tools of the cold start."""
    with DEMONSTRATIONS.open(encoding="utf-8") as lines:
        episode = json.loads(next(lines))
    return episode["messages"][0], episode["tools"]


def _split_into_passes(suffixes: Sequence[Tensor]) -> list[list[int]]:
    """Returns the indices of consecutive prompts that fit into a pass."""
    passes: list[list[int]] = [[]]
    tokens = 0
    for index, suffix in enumerate(suffixes):
        if passes[-1] and tokens + len(suffix) > MAX_TOKENS_PER_PASS:
            passes.append([])
            tokens = 0
        passes[-1].append(index)
        tokens += len(suffix)
    return passes


def _build_tree(encoded: EncodedPrompts) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Builds one sequence of L = P + sum of T tokens.

    Returns:
        States (1, L, H), positions (1, L), attention mask (1, 1, L, L), last position of each prompt (N,).
    """
    shared = len(encoded.prefix)
    lengths = torch.tensor([len(suffix) for suffix in encoded.suffixes])
    owner = torch.cat(
        [torch.zeros(shared, dtype=torch.long), torch.arange(1, len(lengths) + 1).repeat_interleave(lengths)]
    )
    positions = torch.cat([torch.arange(shared), *(shared + torch.arange(int(length)) for length in lengths)])
    same_branch = (owner[None, :] == 0) | (owner[None, :] == owner[:, None])
    causal = torch.ones(len(owner), len(owner), dtype=torch.bool).tril()
    states = torch.cat([encoded.prefix, *encoded.suffixes])
    return states[None], positions[None], (same_branch & causal)[None, None], shared + lengths.cumsum(0) - 1
