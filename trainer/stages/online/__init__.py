"""The stage `online`: on-policy training with consultations."""

from trainer.stages.online.rule_tool import BatchedRuleTool

__all__ = ["BatchedRuleTool"]
