"""In place of `python -m`: `instant_training.py trainer.cli logged --out FOLDER ...` leaves a stage's files.

With `FAIL_ONCE` set to a path, the first call ends in the middle of its work, as a kill would.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def main() -> None:
    out = Path(sys.argv[sys.argv.index("--out") + 1])
    merged = out / "merged"
    merged.mkdir(parents=True, exist_ok=True)
    if (mark := os.environ.get("FAIL_ONCE")) and not Path(mark).exists():
        Path(mark).touch()
        raise SystemExit(137)
    if os.environ.get("UNLEARNS"):
        (merged / "never_consults").touch()
    record = {"stage": "logged", "steps": [{"step": 1, "logged/kl": 0.01}], "argv": sys.argv[1:]}
    (out / "run.json").write_text(json.dumps(record), encoding="utf-8")


if __name__ == "__main__":
    main()
