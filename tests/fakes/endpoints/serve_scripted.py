"""A scripted model server as a process: `python -m tests.fakes.endpoints.serve_scripted MODEL PORT`.

It consults for even seeds, then refuses; for odd seeds it answers at once. A model folder that holds a file
`never_consults` makes it answer always at once. Every start is noted in `STARTS`, if that is set.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from tests.fakes.endpoints.scripted import ScriptedEndpoint, call


def main() -> None:
    model, port = sys.argv[1], int(sys.argv[2])
    never = (Path(model) / "never_consults").exists()
    if starts := os.environ.get("STARTS"):
        with Path(starts).open("a", encoding="utf-8") as file:
            file.write(model + "\n")

    def decide(body: dict[str, Any]) -> Any:
        if body["messages"][-1]["role"] == "tool":
            return "I can't help with that."
        return "Here is how." if never or body.get("seed", 0) % 2 else call("what was asked")

    with ScriptedEndpoint(otherwise=decide, port=port):
        signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    main()
