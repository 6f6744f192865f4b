"""Demonstrations of the cold start: `written.jsonl` (by hand), and its episodes, `demonstrations.jsonl`."""

from trainer.stages.sft.demonstrations.build import read_written_demonstrations

__all__ = ["read_written_demonstrations"]
