"""A language model reduced to its first decision: whether the reply begins with a consultation.

All prompts share a prefix (the beginning of the system text), and the layers below the adapter never change.
The hidden states that enter the adapted layers are therefore computed once and cached. A pass concatenates
the prefix, the branches (the rest of the system text, one for each different hint) and the suffixes of all
prompts to one sequence with tree attention: each suffix attends to the prefix, its branch and itself. This
needs no padding, computes what is shared once, and passes gradients through all of it.
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
CACHE_FORMAT = 2
MAX_TOKENS_PER_PASS = 768
"""Maximum number of tokens after the prefix in a pass without gradients."""
PROMPTS_PER_HEAD = 64
"""Maximum number of prompts whose logits, which are large, exist at once in a pass without gradients."""


@dataclass(frozen=True)
class EncodedPrompts:
    """N prompts as hidden states that enter the first adapted layer: prefix, then branch, then suffix."""

    prefix: Tensor
    """(P, H), shared by all prompts."""
    branches: list[Tensor]
    """Tensors (B, H), each shared by some prompts; one empty tensor without hints."""
    branch_of: list[int]
    """(N,) index of each prompt's branch."""
    suffixes: list[Tensor]
    """N tensors (T, H)."""

    def select(self, indices: Sequence[int]) -> EncodedPrompts:
        """Returns the subset of prompts with these indices, with the branches that they need."""
        used = sorted({self.branch_of[index] for index in indices})
        return EncodedPrompts(
            self.prefix,
            [self.branches[branch] for branch in used],
            [used.index(self.branch_of[index]) for index in indices],
            [self.suffixes[index] for index in indices],
        )

    def passes(self) -> list[list[int]]:
        """Returns the indices of the prompts of each pass without gradients. Branches stay together."""
        passes: list[list[int]] = [[]]
        tokens = 0
        for index in sorted(range(len(self.suffixes)), key=lambda index: self.branch_of[index]):
            known = any(self.branch_of[other] == self.branch_of[index] for other in passes[-1])
            length = len(self.suffixes[index]) + len(self.branches[self.branch_of[index]])
            if passes[-1] and tokens + length > MAX_TOKENS_PER_PASS:
                passes.append([])
                known, tokens = False, 0
            passes[-1].append(index)
            tokens += len(self.suffixes[index]) if known else length
        return passes


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

    def encode(
        self, prompts: Sequence[str], cache: Path, hints: Sequence[str | None] | None = None
    ) -> EncodedPrompts:
        """Runs prompts through the layers below the adapter, or reads the result from `cache`.

        Args:
            hints: the line at the end of each prompt's system text, or None for a prompt without one; None if
                no prompt has one.
        """
        ids = self._all_tokens(prompts, hints)
        digest = hashlib.sha256(json.dumps([CACHE_FORMAT, self.first_adapted, ids]).encode())
        digest.update(_identity(self.folder))
        file = cache / f"hidden-{digest.hexdigest()[:16]}.pt"
        if file.is_file():
            return EncodedPrompts(**torch.load(file, weights_only=True))
        encoded = self._run_lower(_split(ids, self._turn_starts(ids)))
        cache.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".tmp")
        torch.save(vars(encoded), partial)
        partial.replace(file)
        return encoded

    def tokenize(self, prompts: Sequence[str], hints: Sequence[str | None] | None = None) -> EncodedPrompts:
        """Returns prompts as token ids, in the structure of hidden states but without their dimension H."""
        ids = self._all_tokens(prompts, hints)
        return _split(ids, self._turn_starts(ids))

    def _all_tokens(self, prompts: Sequence[str], hints: Sequence[str | None] | None) -> list[list[int]]:
        lines = hints if hints is not None else [None] * len(prompts)
        return [self._tokens(prompt, hint) for prompt, hint in zip(prompts, lines, strict=True)]

    def embed(self, tokens: EncodedPrompts) -> EncodedPrompts:
        """Returns the embeddings of tokens in the same structure."""
        embed = self.model.model.embed_tokens
        return EncodedPrompts(
            embed(tokens.prefix),
            [embed(branch) for branch in tokens.branches],
            tokens.branch_of,
            [embed(suffix) for suffix in tokens.suffixes],
        )

    def _turn_starts(self, ids: Sequence[list[int]]) -> list[int]:
        """Returns the position at which the user's turn of each prompt starts."""
        opening = ids[0][0]  # every turn starts with the same token; the first turn is the system text
        return [tokens.index(opening, 1) for tokens in ids]

    def _run_lower(self, tokens: EncodedPrompts) -> EncodedPrompts:
        """Returns hidden states from tokens in the same structure."""
        prefix, branches = tokens.prefix, list(tokens.branches)
        suffixes = list(tokens.suffixes)
        with torch.no_grad():
            for chosen in tokens.passes():
                words = self.embed(tokens.select(chosen))
                x, positions, mask, _ = build_tree(words)
                x = self._run(self.model.model.layers[: self.first_adapted], x, positions, mask)[0]
                pieces = [words.prefix, *words.branches, *words.suffixes]
                first, *others = [piece.clone() for piece in torch.split(x, [len(piece) for piece in pieces])]
                prefix = first
                used = sorted({tokens.branch_of[index] for index in chosen})
                for branch, states in zip(used, others, strict=False):
                    branches[branch] = states
                for index, states in zip(chosen, others[len(used) :], strict=True):
                    suffixes[index] = states
        return EncodedPrompts(prefix, branches, tokens.branch_of, suffixes)

    def log_probabilities(self, encoded: EncodedPrompts) -> Tensor:
        """Returns (N, V) log-probabilities of the first token of each reply, float32, with gradients."""
        return self._logits(encoded).log_softmax(-1)

    def log_odds(self, encoded: EncodedPrompts) -> Tensor:
        """Returns (N,) the log-odds that each reply begins with a consultation, float64, with gradients."""
        return self._log_odds(self._logits(encoded))

    def _logits(self, encoded: EncodedPrompts) -> Tensor:
        """Returns (N, V) logits of the first token of each reply, float32, with gradients."""
        precision = torch.autocast("cpu", torch.bfloat16) if self.bfloat16 else contextlib.nullcontext()
        x, positions, mask, last = build_tree(self._states(encoded))
        with precision:
            x = self._decide(x, positions, mask, last)
        logits: Tensor = self.model.lm_head(self.model.model.norm(x.float()))
        return logits

    def _log_odds(self, logits: Tensor) -> Tensor:
        logits = logits.double()
        others = torch.ones(logits.shape[1], dtype=torch.bool)
        others[self.consult_token] = False
        return logits[:, self.consult_token] - logits[:, others].logsumexp(-1)

    def consult_probabilities(self, encoded: EncodedPrompts) -> Tensor:
        """Returns (N,) the exact probability that each reply begins with a consultation, float32."""
        return self.consult_log_odds(encoded).sigmoid().float()

    def consult_log_odds(self, encoded: EncodedPrompts) -> Tensor:
        """Returns (N,) the log-odds that each reply begins with a consultation, float64.

        Unlike probabilities, these still distinguish prompts whose probabilities round to 0 or 1.
        """
        with torch.no_grad():
            states = torch.split(self.final_states(encoded), PROMPTS_PER_HEAD)
            return torch.cat([self._log_odds(self.model.lm_head(each)) for each in states])

    def final_states(self, encoded: EncodedPrompts) -> Tensor:
        """Returns (N, H) the states from which the first token of each reply is predicted, float32."""
        found = torch.empty(len(encoded.suffixes), self.model.config.hidden_size)
        with torch.no_grad():
            for chosen in encoded.passes():
                x, positions, mask, last = build_tree(self._states(encoded.select(chosen)))
                found[chosen] = self.model.model.norm(self._decide(x, positions, mask, last))
        return found

    def _states(self, encoded: EncodedPrompts) -> EncodedPrompts:
        """Returns the states that enter the first trained layer."""
        return encoded

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

    def _tokens(self, prompt: str, hint: str | None = None) -> list[int]:
        system = self.system
        if hint is not None:  # as the agent adds it
            system = system | {"content": f"{system['content']}\n\n{hint}".strip()}
        messages = [system, {"role": "user", "content": prompt}]
        ids: list[int] = self.tokenizer.apply_chat_template(
            messages, tools=self.tools, add_generation_prompt=True, return_dict=False
        )
        return ids


def _identity(folder: Path) -> bytes:
    """Returns bytes that change with the weights: the record of the training or of the conversion that wrote
    them, else the sizes and times of the files."""
    for record in (folder.parent / "run.json", folder / "ascl-model.json"):
        if record.is_file():
            return record.read_bytes()
    files = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(folder.glob("*"))]
    return json.dumps(files).encode()


def _context() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns the system message and tools of the cold start."""
    with DEMONSTRATIONS.open(encoding="utf-8") as lines:
        episode = json.loads(next(lines))
    return episode["messages"][0], episode["tools"]


def _split(ids: Sequence[Sequence[int]], turn_starts: Sequence[int]) -> EncodedPrompts:
    """Splits the tokens of prompts into prefix, branches and suffixes.

    Args:
        turn_starts: position at which the user's turn of each prompt starts.
    """
    heads = [tuple(tokens[:start]) for tokens, start in zip(ids, turn_starts, strict=True)]
    different = list(dict.fromkeys(heads))
    if len(different) == 1:
        shared = _common_length(ids)
        return EncodedPrompts(
            torch.tensor(ids[0][:shared]),
            [torch.tensor([], dtype=torch.long)],
            [0] * len(ids),
            [torch.tensor(tokens[shared:]) for tokens in ids],
        )
    shared = _common_length(different)
    return EncodedPrompts(
        torch.tensor(different[0][:shared]),
        [torch.tensor(head[shared:]) for head in different],
        [different.index(head) for head in heads],
        [torch.tensor(tokens[start:]) for tokens, start in zip(ids, turn_starts, strict=True)],
    )


def _common_length(sequences: Sequence[Sequence[int]]) -> int:
    """Returns the number of tokens with which all sequences begin."""
    columns = enumerate(zip(*sequences, strict=False))
    return next(index for index, tokens in columns if len(set(tokens)) > 1)


def build_tree(encoded: EncodedPrompts) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Builds one sequence of L tokens: the prefix, all branches, all suffixes.

    Returns:
        States (1, L, H), positions (1, L), attention mask (1, 1, L, L), last position of each prompt (N,).
    """
    shared, count = len(encoded.prefix), len(encoded.branches)
    branches, suffixes = ([len(each) for each in group] for group in (encoded.branches, encoded.suffixes))
    lengths = torch.tensor([shared, *branches, *suffixes])
    starts = [0, *[shared] * count, *(shared + branches[branch] for branch in encoded.branch_of)]
    owner = torch.arange(len(lengths)).repeat_interleave(lengths)
    visible = torch.eye(len(lengths), dtype=torch.bool)  # which piece attends to which
    visible[:, 0] = True
    for index, branch in enumerate(encoded.branch_of):
        visible[1 + count + index, 1 + branch] = True
    positions = torch.cat([start + torch.arange(int(n)) for start, n in zip(starts, lengths, strict=True)])
    causal = torch.ones(len(owner), len(owner), dtype=torch.bool).tril()
    states = torch.cat([encoded.prefix, *encoded.branches, *encoded.suffixes])
    mask = visible[owner[:, None], owner[None, :]] & causal
    return states[None], positions[None], mask[None, None], lengths.cumsum(0)[1 + count :] - 1
