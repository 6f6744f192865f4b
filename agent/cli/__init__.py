"""The command line `ascl-agent`."""

from agent.cli.app import app, main

__all__ = ["app", "main"]
