"""What a host starts in the unpacked bundle: the rule service over standard input and output."""

import sys

from rule_server.cli import main

sys.argv = ["ascl-rules", "stdio"]
main()
