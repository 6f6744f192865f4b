"""Finds tokens of a call that a model was never trained on, by their rows in the embeddings.

The rows of tokens that never occurred in training stay close to each other. Such a token has almost no
probability, and an adapter on the layers cannot raise it above that of the tokens with the same row.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.tools import RULE_TOOL
from trainer.tokens.rendering import render_turns, turn_end_ids

EQUAL_COSINE = 0.999
"""Cosine above which two rows count as equal; unused tokens of Qwen2.5-Coder-0.5B share 2,453 such rows."""
_ROWS_AT_ONCE = 8192


@dataclass(frozen=True)
class UntrainedToken:
    """A token whose row in an embedding equals those of other tokens."""

    text: str
    equal_rows: int
    """Number of other tokens with this row; 0 if the row is zero."""


def untrained_call_tokens(folder: Path, tokenizer: Any) -> list[UntrainedToken]:
    """Returns the added tokens that a call is written with and that the model was not trained on.

    Only the rows of the embeddings are read, not the model. Returns an empty list if the folder has no
    weights in the safetensors format.

    Args:
        folder: model folder.
        tokenizer: its tokenizer.

    Raises:
        RenderingError: the chat template cannot show a call.
        safetensors.SafetensorError: the weights cannot be read.
    """
    ids = _added_tokens_of_a_call(tokenizer)
    counts: dict[int, int] = {}
    for path, name in _embeddings(folder) if ids else ():
        counts |= {id: count for id, count in _equal_rows(path, name, ids).items() if count is not None}
    return [UntrainedToken(tokenizer.convert_ids_to_tokens(id), counts[id]) for id in ids if id in counts]


def untrained_problem(folder: Path, tokenizer: Any) -> str | None:
    """Explains why an adapter cannot teach the model to call a tool; None if no reason was found."""
    tokens = untrained_call_tokens(folder, tokenizer)
    if not tokens:
        return None
    texts = " and ".join(f"'{token.text}'" for token in tokens)
    rows = max(token.equal_rows for token in tokens)
    evidence = f"equal to those of {rows:,} other tokens" if rows else "zero"
    return (
        f"its chat template writes a call with {texts}, added tokens that it was never trained on (their "
        f"embeddings are {evidence}), and an adapter cannot change that: use a model trained to call "
        f"tools, or remove {texts} from the added tokens in tokenizer.json (and tokenizer_config.json), so "
        "that the tokenizer writes them with several trained tokens"
    )


def _added_tokens_of_a_call(tokenizer: Any) -> list[int]:
    function = {"name": RULE_TOOL, "arguments": json.dumps({"situation": "x"})}
    call = {"id": "call00001", "type": "function", "function": function}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
    ]
    reply = render_turns(tokenizer, messages, [])[-1].reply
    ids = tokenizer.encode(reply, add_special_tokens=False)
    # The end token is learnt from answers too; where it pads, transformers initialises its row with zeros.
    ends = {*turn_end_ids(tokenizer), tokenizer.pad_token_id}
    return [id for id in dict.fromkeys(ids) if id in tokenizer.added_tokens_decoder and id not in ends]


def _embeddings(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yields file and name of each matrix with a row per token: the input and the output embedding."""
    from safetensors import safe_open

    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        rows = (config.get("text_config") or config)["vocab_size"]
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  (not a dict)
                shape = file.get_slice(name).get_shape()
                if len(shape) == 2 and shape[0] >= rows > shape[1]:
                    yield path, name


def _equal_rows(path: Path, name: str, ids: list[int]) -> dict[int, int | None]:
    """Counts the other rows that equal the row of each id: 0 for a zero row, None for a unique row."""
    import torch
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        matrix = file.get_slice(name)
        size = matrix.get_shape()[0]
        known = [id for id in ids if id < size]
        if not known or not matrix[0:1].is_floating_point():
            return {}
        own = torch.stack([matrix[id : id + 1][0] for id in known]).float()  # (K, D)
        lengths = own.norm(dim=1)
        own = torch.nn.functional.normalize(own, dim=1)
        counts = torch.zeros(len(known), dtype=torch.long)
        for start in range(0, size, _ROWS_AT_ONCE):
            rows = torch.nn.functional.normalize(matrix[start : start + _ROWS_AT_ONCE].float(), dim=1)
            counts += (rows @ own.T > EQUAL_COSINE).sum(dim=0)
    others = (counts - 1).tolist()
    result: dict[int, int | None] = {}
    for id, length, count in zip(known, lengths.tolist(), others, strict=True):
        result[id] = 0 if length == 0 else (count or None)
    return result
