"""Entry point of the unpacked bundle: runs the rule service over standard input and output."""

import sys

from rule_server.cli import main

sys.argv = ["ascl-rules", "stdio"]
main()
