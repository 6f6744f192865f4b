"""Decisions measured with a model: the exact probability of the opening token, without sampling."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.errors import TrainingError
from trainer.reports.decision_bias.decisions import Decision, Decisions, OpeningToken
from trainer.reports.decision_bias.prompts import CalibrationPrompt
from trainer.stages import model_io, silence_libraries
from trainer.tokens import RenderingError, call_opening
from trainer.tokens.chat_template import token_texts
from trainer.tokens.rendering import render_turns

if TYPE_CHECKING:
    import torch

OnProgress = Callable[[int, int], None]
"""Receives the number of prompts measured, and of all prompts."""


@dataclass(frozen=True)
class OpeningRow:
    """A prompt and the opening of a call in reply to it, as token ids."""

    context: list[int]
    """The prompt, and the tokens with which every reply begins."""
    opening: list[int]
    """The token that opens a call, and the tokens up to the rule tool's name."""


def measured_decisions(
    prompts: Sequence[CalibrationPrompt],
    model: str,
    adapter: Path | None = None,
    temperature: float = 1.0,
    on_progress: OnProgress = lambda done, total: None,
) -> Decisions:
    """Computes the decision of a model for each prompt.

    Args:
        model: folder or hub name.
        adapter: folder of a PEFT adapter of this model.
        temperature: sampling temperature; 0 for greedy decoding.

    Raises:
        TrainingError: the model or the adapter cannot be loaded, or its chat template cannot write a call.
    """
    tokenizer = model_io.load_tokenizer(model)
    rows = opening_rows(tokenizer, prompts, model)
    network = _load(model, adapter)
    shared = _common_prefix([row.context for row in rows])
    decisions = []
    for prompt, (margin, rest) in zip(prompts, _scores(network, rows, shared, temperature), strict=True):
        decisions.append(Decision(prompt.id, prompt.kind, margin, rest))
        on_progress(len(decisions), len(prompts))
    id = rows[0].opening[0]
    text = tokenizer.decode([id])
    token = OpeningToken(text, id, text in token_texts(tokenizer).all)
    return Decisions(token, temperature, decisions)


def opening_rows(tokenizer: Any, prompts: Sequence[CalibrationPrompt], model: str) -> list[OpeningRow]:
    """Splits each opening where it departs from a direct answer.

    Raises:
        TrainingError: the template cannot write a call, or no token distinguishes a call from a direct
            answer.
    """
    try:
        with silence_libraries():
            openings = [call_opening(tokenizer, p.messages, p.tools, p.options) for p in prompts]
            first = prompts[0]
            answer = [*first.messages, {"role": "assistant", "content": "Yes."}]
            direct = render_turns(tokenizer, answer, first.tools, first.options)[-1].reply
    except (RenderingError, ValueError) as cause:
        raise TrainingError(
            f"the chat template of '{model}' cannot write a call of the rule tool ({cause}): use a model "
            "whose template supports tools (`ascl-train check-template` checks it)"
        ) from None
    written = tokenizer.encode(direct, add_special_tokens=False)
    at = _common_prefix([openings[0]["completion_ids"], written])
    rows = [
        OpeningRow(each["prompt_ids"] + each["completion_ids"][:at], each["completion_ids"][at:])
        for each in openings
    ]
    if len({row.opening[0] for row in rows}) > 1 or rows[0].opening[0] in written[at : at + 1]:
        raise TrainingError(
            f"the chat template of '{model}' opens calls with different tokens, or like a direct answer: "
            "one offset cannot change the decision"
        )
    return rows


def _load(model: str, adapter: Path | None) -> Any:
    import torch
    import transformers

    with silence_libraries(), model_io.explain_unreadable_weights(model):
        network = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        if adapter is not None:
            network = _with_adapter(network, adapter)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return network.to(device).eval()


def _with_adapter(network: Any, adapter: Path) -> Any:
    import peft

    if not (adapter / "adapter_config.json").is_file():
        raise TrainingError(f"'{adapter}' is not an adapter (it has no adapter_config.json)")
    try:
        return peft.PeftModel.from_pretrained(network, str(adapter))
    except (RuntimeError, ValueError, OSError) as error:
        first = str(error).strip().splitlines()[0]
        raise TrainingError(
            f"the adapter '{adapter}' does not fit the model ({first}): pass the model it was trained from"
        ) from None


def _scores(network: Any, rows: list[OpeningRow], shared: int, temperature: float) -> Any:
    """Yields the margin of each row's opening token, and the probability of the rest of its opening.

    The beginning that all prompts share, such as the system text and the tools, is computed once.
    """
    import torch

    with torch.inference_mode():
        beginning = torch.tensor([rows[0].context[:shared]], device=network.device)
        cache = network(beginning, use_cache=True, logits_to_keep=1).past_key_values if shared else None
        for row in rows:
            own = row.context[shared:] if cache is not None else row.context
            ids = torch.tensor([own + row.opening[:-1]], device=network.device)
            known = {} if cache is None else {"past_key_values": copy.deepcopy(cache)}
            logits = network(ids, logits_to_keep=len(row.opening), **known).logits[0].double()
            yield _score(logits, row.opening, temperature)


def _score(logits: torch.Tensor, opening: list[int], temperature: float) -> tuple[float, float]:
    first, token = logits[0], opening[0]
    others = first.clone()
    others[token] = -math.inf
    if temperature == 0:
        greedy = all(int(line.argmax()) == id for line, id in zip(logits[1:], opening[1:], strict=True))
        return float(first[token] - others.max()), float(greedy)
    margin = float(first[token] / temperature - (others / temperature).logsumexp(-1))
    later = (logits[1:] / temperature).log_softmax(-1)
    rest = sum(float(line[id]) for line, id in zip(later, opening[1:], strict=True))
    return margin, math.exp(rest)


def _common_prefix(sequences: Sequence[list[int]]) -> int:
    """Returns the length of the common beginning, leaving at least one token of each sequence."""
    shortest = min(map(len, sequences)) - 1
    return next(
        (at for at in range(shortest) if len({sequence[at] for sequence in sequences}) > 1), max(shortest, 0)
    )
