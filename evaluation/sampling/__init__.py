"""Samples episodes for the arms of an evaluation."""

from evaluation.sampling.arms import ARM_KINDS
from evaluation.sampling.sample import Policy, sample

__all__ = ["ARM_KINDS", "Policy", "sample"]
