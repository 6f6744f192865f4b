"""The `ascl-train` command line."""

from trainer.cli.app import app, main

__all__ = ["app", "main"]
