"""The command line `ascl-eval`."""

from evaluation.cli.app import app, main

__all__ = ["app", "main"]
