"""Position where a reply decides whether to consult: the tokens that open a call, after any thoughts.

A reply takes one of three *strata* there: it opens a call (`CONSULT`), it departs from the opening before the
first token of the call (`DIRECT`), or within the call (`NEITHER`). A reply that ends inside its thoughts, or
writes none although its template expects them, is `UNDECIDED`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from trainer.errors import TrainingError
from trainer.tokens import RenderingError, call_opening

CONSULT, DIRECT, NEITHER, UNDECIDED = range(4)
_CLOSING_TAG = "</think>"


class Decision(NamedTuple):
    """Position of a decision in a reply, and the stratum of the reply."""

    start: int
    end: int
    stratum: int


@dataclass(frozen=True)
class CallOpening:
    """Tokens with which a model opens a call of the rule tool."""

    ids: list[int]
    """Token ids from the beginning of the reply, or of its part after the thoughts, to the tool's name."""
    lead: int = 0
    """Number of these that are only whitespace; the next one is the first token of the call."""
    thoughts_end: int | None = None
    """Token that ends the thoughts before the decision; None if replies have no thoughts."""

    def decision(self, reply: Sequence[int]) -> Decision:
        """Returns the position of a reply's decision. Without a decision, both ends are 0."""
        start = 0
        if self.thoughts_end is not None:
            if self.thoughts_end not in reply:
                return Decision(0, 0, UNDECIDED)
            start = reply.index(self.thoughts_end) + 1
        rest = reply[start : start + len(self.ids)]
        if not rest:
            return Decision(0, 0, UNDECIDED)
        pairs = zip(rest, self.ids, strict=False)
        matching = next((i for i, (found, wanted) in enumerate(pairs) if found != wanted), len(rest))
        if matching == len(rest):  # a reply that was cut off within the opening would have opened a call
            stratum = CONSULT if matching > self.lead else DIRECT
        else:
            stratum = DIRECT if matching <= self.lead else NEITHER
        return Decision(start, start + min(matching + 1, len(rest)), stratum)


def find_call_opening(
    tokenizer: Any,
    tool: dict[str, Any],
    template: str | None = None,
    template_options: Mapping[str, Any] | None = None,
) -> CallOpening:
    """Returns the opening of a call of the rule tool, according to a model's chat template.

    Args:
        template: replaces the tokenizer's own chat template, as TRL's training templates do.
        template_options: `chat_template_kwargs`, such as `{"enable_thinking": False}`.

    Raises:
        TrainingError: the template cannot render a call, or its thoughts do not end with one known token.
    """
    if template is not None:
        tokenizer = copy.copy(tokenizer)
        tokenizer.chat_template = template
    try:
        row = call_opening(tokenizer, [{"role": "user", "content": "x"}], [tool], template_options)
    except RenderingError as cause:
        raise TrainingError(
            f"modes cannot be forced, because the tokens that open a call are not known: {cause}; remove "
            "forced_consult and forced_direct"
        ) from None
    ids = row["completion_ids"]
    thoughts_end = None
    if _CLOSING_TAG in tokenizer.decode(ids):
        thoughts_end = tokenizer.convert_tokens_to_ids(_CLOSING_TAG)
        if thoughts_end is None or thoughts_end not in ids:
            raise TrainingError(
                f"modes cannot be forced, because the model thinks first and {_CLOSING_TAG} is not one token "
                "of its tokenizer: remove forced_consult and forced_direct, or turn thinking off "
                "(chat_template_kwargs: {enable_thinking: false})"
            )
        ids = ids[ids.index(thoughts_end) + 1 :]
    lead = next(i for i, id in enumerate(ids) if tokenizer.decode([id]).strip())
    return CallOpening(ids, lead, thoughts_end)
