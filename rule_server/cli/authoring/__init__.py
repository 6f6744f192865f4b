"""Commands of ascl-rules for rule authors."""

from rule_server.cli.authoring.check import lint
from rule_server.cli.authoring.compare import diff, rollback
from rule_server.cli.authoring.expectations import expect_command
from rule_server.cli.authoring.start import init, new
from rule_server.cli.authoring.usage import owners, stats

__all__ = ["diff", "expect_command", "init", "lint", "new", "owners", "rollback", "stats"]
