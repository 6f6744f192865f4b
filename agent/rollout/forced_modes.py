"""Mode-stratified sampling: forces the mode of a share of each group, with the same prompt and tools.

A group without one of the modes teaches nothing about that mode. The first samples of a group must consult,
the next must answer directly, and the model decides in the rest:

- `consult`: the agent writes the call, with the prompt as its situation; the model continues from there.
- `direct`: replies that call the rule tool are sampled again, up to eight times by default; if the token that
  starts a call is known, a bias against it makes calls rare.

The episode records this in `mode_forced` and `mode_method`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from agent.endpoint import ToolCall, parse_arguments
from agent.episode import Message, Mode
from agent.errors import PromptError

DEFAULT_DIRECT_DRAWS = 8
"""Default maximum number of replies sampled for a turn of an episode that must answer directly."""
_MAX_SITUATION_CHARS = 4000  # limit of the rule service
_SEED_STEP = 1_000_003  # gives each draw its own seed


@dataclass(frozen=True)
class ModeShare:
    """Shares of each group with a forced mode: each from 0 to 1, together at most 1."""

    consult: float = 0.0
    direct: float = 0.0

    def mode_of(self, sample: int, samples: int) -> Mode | None:
        """Returns the forced mode of sample `sample` of `samples`; None if the model decides."""
        consult = round(self.consult * samples)
        direct = min(round(self.direct * samples), samples - consult)
        return "consult" if sample < consult else "direct" if sample < consult + direct else None

    def as_dict(self) -> dict[str, float]:
        """Returns the shares for a run's settings."""
        return {"consult": self.consult, "direct": self.direct}


def parse_mode_shares(texts: list[str]) -> ModeShare | None:
    """Parses `consult=0.25` and `direct=0.25`; returns None if no share is above 0.

    Raises:
        PromptError: if a share is invalid or occurs twice, or if their sum exceeds 1.
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
                f"invalid mode share {text!r}: pass consult=0.25, direct=0.25 or both, "
                "each once and from 0 to 1"
            )
        shares[name] = share
    if sum(shares.values()) > 1:
        raise PromptError(f"the mode shares add up to {sum(shares.values()):g}: their sum may be at most 1")
    return ModeShare(**shares) if any(shares.values()) else None


def agent_written_call(tool: str, prompt: str, taken: set[str], text_mode: bool) -> tuple[Message, ToolCall]:
    """Returns a message with a call of the rule tool, written by the agent, and the call."""
    arguments = json.dumps({"situation": prompt[:_MAX_SITUATION_CHARS]}, ensure_ascii=False)
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
    """Returns the sampling fields of draw `draw`, from 0, of a reply that must not call the tool."""
    fields = dict(sampling)
    if draw and isinstance(fields.get("seed"), int):
        fields["seed"] += draw * _SEED_STEP
    if call_token is not None:
        fields["logit_bias"] = {**fields.get("logit_bias", {}), str(call_token): -100}
    return fields
