"""Samples episodes for the arms of an evaluation."""

from evaluation.sampling.arms import ARM_KINDS
from evaluation.sampling.sample import ArmRun, Policy, plan_arms, sample

__all__ = ["ARM_KINDS", "ArmRun", "Policy", "plan_arms", "sample"]
