"""Inspect's entry point: Inspect imports this module to find `ascl/safety`."""

from evaluation.sampling.inspect_task import register

register()
