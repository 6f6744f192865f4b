"""Runs a scripted model server: `python -m tests.fakes.endpoints.serve_scripted MODEL PORT`.

For even seeds the model consults and then refuses. For odd seeds it answers directly. If the model folder
contains a file `never_consults`, the model always answers directly. Each start appends the model's name to
the file that the environment variable `STARTS` names, if set.
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
