"""How likely a policy is to consult, exactly: the probability of the words that open a call, no sampling.

It is the probability of the call as the chat template spells it, from the first token of the reply to the
tool's name. A model that thinks first decides later, and one that spells its calls otherwise is understated.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

from trainer.tokens.modes import RULE_TOOL
from trainer.tokens.rendering import render_turns

Score = Callable[[list[dict[str, Any]]], list[list[float]]]
_CALL = {"type": "function", "function": {"name": RULE_TOOL, "arguments": json.dumps({"situation": "s"})}}


def call_opening(
    tokenizer: Any, messages: list[dict[str, Any]], tools: list[dict[str, Any]]
) -> dict[str, list[int]]:
    """The tokens that open a call in answer to `messages`, as a row to score.

    Raises:
        RenderingError: the template cannot show a call.
    """
    call = {"role": "assistant", "content": "", "tool_calls": [{**_CALL, "id": "call000001"}]}
    prompt, reply = render_turns(tokenizer, [*messages, call], tools)[-1]
    ids = tokenizer.encode(reply[: reply.index(RULE_TOOL) + len(RULE_TOOL)], add_special_tokens=False)
    return {
        "prompt_ids": tokenizer.encode(prompt, add_special_tokens=False),
        "completion_ids": ids,
        "wrote": [1] * len(ids),
    }


def consult_probabilities(score: Score, openings: list[dict[str, list[int]]], size: int) -> list[float]:
    """The probability of each opening.

    Args:
        score: log-probabilities of rows, such as `LoggedIFPOTrainer.logprobs`.
        size: openings scored at once.
    """
    found: list[float] = []
    for start in range(0, len(openings), size):
        found += [math.exp(sum(line)) for line in score(openings[start : start + size])]
    return found
