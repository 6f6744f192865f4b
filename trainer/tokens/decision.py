"""Probability that a policy consults: that of the tokens that open a call, computed without sampling.

It covers the call as the chat template writes it, from the first token of the reply to the tool's name. It is
too low for a model that thinks first, or that writes its calls in another form.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from agent.tools import RULE_TOOL
from trainer.tokens.rendering import render_turns

ScoreRows = Callable[[list[dict[str, Any]]], list[list[float]]]
"""Returns the log-probabilities of the completion tokens of each row."""
_CALL = {"type": "function", "function": {"name": RULE_TOOL, "arguments": json.dumps({"situation": "s"})}}


def call_opening(
    tokenizer: Any,
    messages: list[dict[str, Any]],
    tools: list[dict[str, Any]],
    template_options: Mapping[str, Any] | None = None,
) -> dict[str, list[int]]:
    """Returns a row to score: the prompt of `messages`, and the tokens that open a call in reply to it.

    Raises:
        RenderingError: the template cannot render a call.
    """
    call = {"role": "assistant", "content": "", "tool_calls": [{**_CALL, "id": "call00001"}]}
    turn = render_turns(tokenizer, [*messages, call], tools, template_options)[-1]
    ids = tokenizer.encode(
        turn.reply[: turn.reply.index(RULE_TOOL) + len(RULE_TOOL)], add_special_tokens=False
    )
    return {
        "prompt_ids": tokenizer.encode(turn.prompt, add_special_tokens=False),
        "completion_ids": ids,
        "loss_mask": [1] * len(ids),
    }


def consult_probabilities(
    score: ScoreRows, openings: list[dict[str, list[int]]], batch_size: int
) -> list[float]:
    """Returns the probability of each opening.

    Args:
        score: such as `LoggedIFPOTrainer.logprobs`.
    """
    probabilities: list[float] = []
    for start in range(0, len(openings), batch_size):
        logprobs = score(openings[start : start + batch_size])
        probabilities += [math.exp(sum(line)) for line in logprobs]
    return probabilities
