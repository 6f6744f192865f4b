"""Rows of a replay, made when they are read: tokens from a mapped file, all else from arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.ifpo import token_advantages
from trainer.stages.logged.dataset.token_file import Row, TokenFile


@dataclass(frozen=True)
class TrainingRows(Sequence[Row]):
    """R episodes to train on, then rows that fill the last batch; see `LoggedIFPOTrainer` for the fields."""

    tokens: TokenFile
    columns: dict[str, npt.NDArray[Any]]
    """(R,) `row` (in `tokens`), `length`, `episode` (in the groups file), `reward`, `advantage`,
    `rest_advantage`, `kind`, `mode`, `has_logprobs`, and (R, 2) `decision`."""
    decode: Any
    """Returns the text of token ids."""
    computed: TokenFile | None = None
    """Log-probabilities of the rows whose log has none."""
    computed_row: npt.NDArray[np.int64] | None = None
    """(R,) row in `computed`; -1 for rows with logged log-probabilities."""
    ratio: npt.NDArray[np.float64] | None = None
    """(R,) ratio of the decision, if rows have an advantage for each token."""
    fillers: int = 0

    def __len__(self) -> int:
        return self.episodes + self.fillers

    @property
    def episodes(self) -> int:
        """Number of rows that are episodes."""
        return len(self.columns["row"])

    def __getitem__(self, index: int) -> Row:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        row = self.numbers(index)
        prompt, completion = self.decode(row["prompt_ids"]), self.decode(row["completion_ids"])
        return {"prompt": prompt, "completion": completion, **row}

    def numbers(self, index: int) -> Row:
        """Returns a row without the texts of its tokens; `logprobs` is None if they are not computed yet."""
        if index >= self.episodes:
            return self._filler()
        row = self.tokens[int(self.columns["row"][index])]
        if self.computed is not None and self.computed_row is not None and self.computed_row[index] >= 0:
            row |= self.computed[int(self.computed_row[index])]
        row["kind"], row["mode"] = self.columns["kind"][index], self.columns["mode"][index]
        row["decision"] = self.columns["decision"][index].tolist()
        for name in ("reward", "advantage", "rest_advantage"):
            row[name] = float(self.columns[name][index])
        if self.ratio is not None:
            row["token_advantages"] = token_advantages(
                row["advantage"],
                row["rest_advantage"],
                float(self.ratio[index]),
                end=row["decision"][1],
                length=len(row["completion_ids"]),
            )
        return row

    def padded(self, batch_size: int) -> TrainingRows:
        """Returns these rows with the last batch filled; TRL would drop an incomplete batch."""
        return replace(self, fillers=-self.episodes % batch_size)

    def _filler(self) -> Row:
        """A copy of the shortest row without loss or advantage."""
        row = self.numbers(int(self.columns["length"].argmin()))
        zeros = [0] * len(row["loss_mask"])
        row |= {"loss_mask": zeros, "logprobs": [0.0] * len(zeros), "advantage": 0.0, "rest_advantage": 0.0}
        if "token_advantages" in row:
            row["token_advantages"] = [0.0] * len(zeros)
        return row
