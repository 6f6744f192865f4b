"""Replaces `python -m`: `instant_training.py trainer.cli logged --out FOLDER` only writes a stage's files.

If the environment variable `FAIL_ONCE` names a path, the first call exits halfway, as after a kill. If
`UNLEARNS` is set, the resulting model never consults.
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
