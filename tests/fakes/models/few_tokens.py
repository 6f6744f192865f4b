"""A policy of seven tokens: the logits of the next one depend on the latest one only, as a test sets them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

PAD, END, PROMPT, CALL, NAME, ANSWER, OTHER = range(7)
_WORDS = ("<pad>", "<eos>", "prompt", "<tool_call>", "consult_safety_rules", "answer", "other")
_SIZE = 8  # of the hidden state: one dimension per token
_NEVER = -1e4


def save_few_tokens(folder: Path) -> Path:
    """Writes the model and its tokenizer to a folder. Returns the folder.

    The only layer adds nothing to the embedding, which is one-hot, so the head is a table of logits by token.
    """
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: id for id, word in enumerate(_WORDS)}, unk_token=_WORDS[OTHER]))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token=_WORDS[PAD], eos_token=_WORDS[END]
    ).save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(_WORDS),
        hidden_size=_SIZE,
        intermediate_size=_SIZE,
        num_hidden_layers=1,
        num_attention_heads=1,
        bos_token_id=PROMPT,
        eos_token_id=END,
        pad_token_id=PAD,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(len(_WORDS), _SIZE))
        model.model.norm.weight.fill_(1 / math.sqrt(_SIZE))
    model.save_pretrained(folder)
    return folder


def set_probabilities(model: Any, after: int, probabilities: dict[int, float]) -> None:
    """Sets the probabilities of the tokens that follow a token; the others never do."""
    column = model.lm_head.weight.data[:, after]
    column.fill_(_NEVER)
    for token, probability in probabilities.items():
        column[token] = math.log(probability) if probability else _NEVER
