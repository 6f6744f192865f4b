"""Stage `online`: on-policy training with consultations of a rule service."""

from trainer.stages.online.rule_tool import BatchedRuleTool

__all__ = ["BatchedRuleTool"]
