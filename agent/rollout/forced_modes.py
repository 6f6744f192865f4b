"""Mode-stratified sampling: a share of each group is brought into a mode, prompt and tools unchanged.

A group that never shows one mode teaches nothing about it. Of its samples, the first are made to consult,
the next to answer directly, and the rest are free:

- `consult`: the agent writes the call, with the prompt as its situation; what follows is the model's own.
- `direct`: replies that call the rule tool are drawn again, eight times in all unless more are allowed; where
  the token that opens a call is known, a bias against it makes them rare.

The episode says so: `mode_forced` and `mode_method`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from agent.endpoint import ToolCall, parse_arguments
from agent.episode import Message, Mode
from agent.errors import PromptError

DEFAULT_DIRECT_DRAWS = 8
"""Replies drawn for one turn of an episode that is to answer directly, unless more are allowed."""
_LONGEST_SITUATION = 4000  # characters that the rule service takes
_SEED_STEP = 1_000_003  # another draw must not be the same draw


@dataclass(frozen=True)
class ModeShare:
    """Shares of each group that are brought into a mode, each from 0 to 1 and at most 1 together."""

    consult: float = 0.0
    direct: float = 0.0

    def mode_of(self, sample: int, samples: int) -> Mode | None:
        """The mode that sample `sample` of `samples` is brought into; None for a free one."""
        consult = round(self.consult * samples)
        direct = min(round(self.direct * samples), samples - consult)
        return "consult" if sample < consult else "direct" if sample < consult + direct else None

    def as_dict(self) -> dict[str, float]:
        """For a run's settings."""
        return {"consult": self.consult, "direct": self.direct}


def parse_mode_shares(texts: list[str]) -> ModeShare | None:
    """`consult=0.25` and `direct=0.25` as shares; None for none.

    Raises:
        PromptError: when one is something else, comes twice, or they are more than 1 together.
    """
    shares: dict[str, float] = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            share = float(value)
        except ValueError:
            share = -1.0
        if name not in ("consult", "direct") or name in shares or not 0 <= share <= 1:
            raise PromptError(
                f"the mode share {text!r} is not understood: pass consult=0.25, direct=0.25 or both, "
                "each once and from 0 to 1"
            )
        shares[name] = share
    if sum(shares.values()) > 1:
        raise PromptError(f"the mode shares add up to {sum(shares.values()):g}: together they are at most 1")
    return ModeShare(**shares) if any(shares.values()) else None


def agent_written_call(tool: str, prompt: str, taken: set[str], text_mode: bool) -> tuple[Message, ToolCall]:
    """The call that the agent writes, and the message that makes it."""
    arguments = json.dumps({"situation": prompt[:_LONGEST_SITUATION]}, ensure_ascii=False)
    id, number = "call_opened", 0
    while id in taken:
        number += 1
        id = f"call_opened_{number}"
    parsed, problem = parse_arguments(arguments)
    call = ToolCall(id, tool, arguments, parsed, problem)
    if text_mode:
        text = f'<tool_call>\n{{"name": "{tool}", "arguments": {arguments}}}\n</tool_call>'
        return {"role": "assistant", "content": text}, call
    entry = {"id": id, "type": "function", "function": {"name": tool, "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [entry]}, call


def redraw_sampling(sampling: dict[str, Any], draw: int, call_token: int | None) -> dict[str, Any]:
    """The sampling fields of draw number `draw`, from 0, of a reply that is to call nothing."""
    fields = dict(sampling)
    if draw and isinstance(fields.get("seed"), int):
        fields["seed"] += draw * _SEED_STEP
    if call_token is not None:
        fields["logit_bias"] = {**fields.get("logit_bias", {}), str(call_token): -100}
    return fields
