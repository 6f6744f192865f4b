"""Runs the command line as `python -m rule_server.cli`."""

from rule_server.cli import main

if __name__ == "__main__":
    main()
