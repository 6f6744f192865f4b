"""Command line `ascl-rules`."""

from rule_server.cli.app import app, main

__all__ = ["app", "main"]
