"""Forces the mode of replies while they are sampled, by masking logits at the decision.

A reply that must consult may write only the next token of the call's opening; one that must answer directly
may not write the first token of the call. All other tokens are sampled from the policy. So a forced reply
follows the policy's own distribution, given its stratum.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList

from trainer.stages.online.strata.call_opening import CONSULT, CallOpening


class ForcedModes(LogitsProcessor):  # type: ignore[misc]
    """Logits processor for one call of `generate`.

    Args:
        modes: (B,) `CONSULT` or `DIRECT` where the mode is forced, None where the model decides.
    """

    def __init__(self, opening: CallOpening, modes: Sequence[int | None]) -> None:
        self._opening = opening
        self._modes = {row: mode for row, mode in enumerate(modes) if mode is not None}  # undecided ones
        # Tokens since the beginning of the decision; None within the thoughts.
        before = None if opening.thoughts_end is not None else list[int]()
        self._written = {row: None if before is None else list(before) for row in self._modes}
        self._is_first = True

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if self._modes and not self._is_first:
            self._read(input_ids[:, -1].tolist())
        self._is_first = False
        if not self._modes:
            return scores
        scores = scores.clone()
        ids = self._opening.ids
        for row, mode in self._modes.items():
            written = self._written[row]
            if written is None:
                continue
            token = ids[len(written)]
            if mode == CONSULT:
                kept = scores[row, token].item()
                scores[row] = -torch.inf
                scores[row, token] = kept
            elif len(written) == self._opening.lead:
                scores[row, token] = -torch.inf
        return scores

    def _read(self, latest: list[int]) -> None:
        """Adds the latest (B,) tokens, and drops the rows that have decided."""
        for row in list(self._modes):
            written = self._written[row]
            if written is None:
                if latest[row] == self._opening.thoughts_end:
                    self._written[row] = []
                continue
            written.append(latest[row])
            if written != self._opening.ids[: len(written)] or len(written) == len(self._opening.ids):
                del self._modes[row]


@contextmanager
def modes_forced(model: Any, opening: CallOpening, modes: Sequence[int | None]) -> Iterator[None]:
    """Within the block, `model.generate` forces the modes of its (B,) replies."""
    processors = LogitsProcessorList([ForcedModes(opening, modes)])
    model.generate = partial(model.generate, logits_processor=processors)
    try:
        yield
    finally:
        del model.generate
