"""The command line `ascl-train`."""

from trainer.cli.app import app, main

__all__ = ["app", "main"]
