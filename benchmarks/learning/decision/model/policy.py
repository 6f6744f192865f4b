"""A language model reduced to its first decision: does the reply begin with a consultation or not?

All prompts share their beginning (system text and tool), and the layers below the first adapted one never
change. So the hidden states that enter the adapted layers are computed once and kept, and one pass lays the
shared beginning and all prompts' ends into one sequence whose attention is a tree: every end sees the
beginning and itself. Nothing is padded, nothing common is computed twice, gradients flow through all of it.
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

from trainer.stages import model_io as adapter
from trainer.stages.sft.stage import DEMONSTRATIONS

TOOL_CALL = "<tool_call>"
CACHE_FORMAT = 1
MAX_TOKENS_PER_PASS = 768
"""Of prompts' ends in one pass without gradients."""


@dataclass(frozen=True)
class EncodedPrompts:
    """N prompts as hidden states that enter the first adapted layer."""

    beginning: Tensor
    """(P, H), shared."""
    ends: list[Tensor]
    """N of (T, H)."""

    def select(self, indices: Sequence[int]) -> EncodedPrompts:
        """The prompts at these places."""
        return EncodedPrompts(self.beginning, [self.ends[index] for index in indices])


class DecisionPolicy:
    """A causal model with a fresh LoRA adapter on its top layers, asked for the first token of a reply.

    Args:
        folder: a model folder whose chat template knows tools.
        layers: how many layers get the adapter, counted from the top.
        rank: of the adapter.
        bfloat16: whether passes with gradients multiply in bfloat16; others always use float32.
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
        self.first = len(self.model.model.layers) - layers
        self._adapt(layers, rank)

    def _adapt(self, layers: int, rank: int) -> None:
        import peft

        from trainer.stages import silence_libraries

        with silence_libraries():
            peft.get_peft_model(self.model, adapter.adapter_config(self.folder, rank, layers))

    def reset(self, seed: int) -> None:
        """Give the adapter its first values, under which the model is the one in the folder."""
        torch.manual_seed(seed)
        for module in self.model.modules():
            if hasattr(module, "reset_lora_parameters"):
                module.reset_lora_parameters("default", True)

    @property
    def trainable(self) -> list[Tensor]:
        """The adapter's parameters."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def encode(self, prompts: Sequence[str], cache: Path) -> EncodedPrompts:
        """Run prompts through the layers below the adapter, or take from `cache` what that gave before."""
        ids = [self._tokens(prompt) for prompt in prompts]
        shared = next(place for place, tokens in enumerate(zip(*ids, strict=False)) if len(set(tokens)) > 1)
        digest = hashlib.sha256(json.dumps([CACHE_FORMAT, self.first, shared, ids]).encode())
        digest.update((self.folder.parent / "run.json").read_bytes())
        file = cache / f"hidden-{digest.hexdigest()[:16]}.pt"
        if file.is_file():
            kept = torch.load(file, weights_only=True)
            return EncodedPrompts(kept["beginning"], list(kept["ends"]))
        beginning = torch.tensor(ids[0][:shared])
        ends = [torch.tensor(each[shared:]) for each in ids]
        embed = self.model.model.embed_tokens
        encoded: EncodedPrompts | None = None
        done: list[Tensor] = []
        with torch.no_grad():
            for chosen in _split_into_passes(ends):
                words = EncodedPrompts(embed(beginning), [embed(ends[index]) for index in chosen])
                x, positions, mask, _ = _build_tree(words)
                x = self._run(self.model.model.layers[: self.first], x, positions, mask)[0]
                parts = torch.split(x[shared:], [len(ends[index]) for index in chosen])
                done += [part.clone() for part in parts]
                encoded = EncodedPrompts(x[:shared].clone(), done)
        assert encoded is not None
        cache.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".tmp")
        torch.save({"beginning": encoded.beginning, "ends": encoded.ends}, partial)
        partial.replace(file)
        return encoded

    def log_probabilities(self, encoded: EncodedPrompts) -> Tensor:
        """(N, V) log-probabilities of the first token of each reply, float32, with gradients."""
        fast = torch.autocast("cpu", torch.bfloat16) if self.bfloat16 else contextlib.nullcontext()
        x, positions, mask, last = _build_tree(encoded)
        with fast:
            x = self._decide(x, positions, mask, last)
        logits: Tensor = self.model.lm_head(self.model.model.norm(x.float()))
        return logits.log_softmax(-1)

    def consult_probabilities(self, encoded: EncodedPrompts) -> Tensor:
        """(N,) how likely each reply is to begin with a consultation, exactly, in float32."""
        chances = []
        with torch.no_grad():
            for chosen in _split_into_passes(encoded.ends):
                x, positions, mask, last = _build_tree(encoded.select(chosen))
                logits = self.model.lm_head(self.model.model.norm(self._decide(x, positions, mask, last)))
                chances.append(logits.softmax(-1)[:, self.consult_token])
        return torch.cat(chances)

    def _decide(self, x: Tensor, positions: Tensor, mask: Tensor, last: Tensor) -> Tensor:
        """(N, H) what leaves the adapted layers at the last place of each prompt.

        The topmost layer needs its keys and values everywhere, but all else only there: a fifth of the time.
        """
        from torch.nn.functional import scaled_dot_product_attention
        from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

        *lower, top = self.model.model.layers[self.first :]
        x = self._run(lower, x, positions, mask)
        attention = top.self_attn
        cos, sin = self.model.model.rotary_emb(x, positions)
        around = top.input_layernorm(x)

        def heads(states: Tensor) -> Tensor:
            return states.view(1, states.shape[1], -1, attention.head_dim).transpose(1, 2)

        query = heads(attention.q_proj(around[:, last]))
        query, _ = apply_rotary_pos_emb(query, query, cos[:, last], sin[:, last])
        key, _ = apply_rotary_pos_emb(*[heads(attention.k_proj(around))] * 2, cos, sin)
        seen = scaled_dot_product_attention(
            query, key, heads(attention.v_proj(around)), attn_mask=mask[:, :, last], enable_gqa=True
        )
        x = x[:, last] + attention.o_proj(seen.transpose(1, 2).flatten(2))
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
    """System message and tools as the cold start saw them."""
    with DEMONSTRATIONS.open(encoding="utf-8") as lines:
        episode = json.loads(next(lines))
    return episode["messages"][0], episode["tools"]


def _split_into_passes(ends: Sequence[Tensor]) -> list[list[int]]:
    """Places of consecutive prompts that together stay within one pass."""
    chunks: list[list[int]] = [[]]
    tokens = 0
    for index, end in enumerate(ends):
        if chunks[-1] and tokens + len(end) > MAX_TOKENS_PER_PASS:
            chunks.append([])
            tokens = 0
        chunks[-1].append(index)
        tokens += len(end)
    return chunks


def _build_tree(encoded: EncodedPrompts) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One sequence of L = P + sum of T tokens: states (1, L, H), positions (1, L), which token sees which
    (1, 1, L, L), and the last place of each prompt (N,)."""
    shared = len(encoded.beginning)
    lengths = torch.tensor([len(end) for end in encoded.ends])
    owner = torch.cat(
        [torch.zeros(shared, dtype=torch.long), torch.arange(1, len(lengths) + 1).repeat_interleave(lengths)]
    )
    places = torch.cat([torch.arange(shared), *(shared + torch.arange(int(length)) for length in lengths)])
    sees = (owner[None, :] == 0) | (owner[None, :] == owner[:, None])
    causal = torch.ones(len(owner), len(owner), dtype=torch.bool).tril()
    states = torch.cat([encoded.beginning, *encoded.ends])
    return states[None], places[None], (sees & causal)[None, None], shared + lengths.cumsum(0) - 1
