"""What the cold start learns from: `written.jsonl`, by hand, and `demonstrations.jsonl`, its episodes."""

from trainer.stages.sft.demonstrations.build import read_written

__all__ = ["read_written"]
