"""Going on with a run that was interrupted: from its last whole checkpoint, with the very same settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trainer.checkpoints import checkpoints
from trainer.errors import TrainingError

_PLAN = "plan.json"


def begin(out: Path, plan: dict[str, Any], resume: bool, first: bool = True) -> Path | None:
    """The checkpoint to go on from; None to start at the beginning. The plan is kept beside the checkpoints.

    Args:
        first: of several processes, the first one looks whether this may go on, and writes; the others follow
            when it has.

    Raises:
        TrainingError: the folder holds an earlier run's checkpoints and `resume` is off, or its plan differs.
    """
    plan = json.loads(json.dumps(plan, default=str))
    found = checkpoints(out)
    if not first:
        return found[-1] if found else None
    if not resume and found:
        raise TrainingError(
            f"{out} holds checkpoints of an earlier run, the last of them {found[-1].name}: "
            "pass --resume to go on from there, or name another folder"
        )
    out.mkdir(parents=True, exist_ok=True)
    if found:
        _same(out, plan)
        return found[-1]
    partial = out / f".{_PLAN}.tmp"
    partial.write_text(json.dumps(plan, indent=2) + "\n", encoding="utf-8")
    partial.replace(out / _PLAN)
    return None


def forget_record(out: Path) -> None:
    """Remove the record of an earlier run, whose files are about to be replaced: not before, since what fails
    until then leaves them whole."""
    (out / "run.json").unlink(missing_ok=True)


def _same(out: Path, plan: dict[str, Any]) -> None:
    try:
        before = json.loads((out / _PLAN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise TrainingError(
            f"{out / _PLAN} is missing or broken, so it cannot be told whether this is the same run: "
            "name another folder"
        ) from None
    names = sorted(before.keys() | plan.keys())
    changed = [name for name in names if before.get(name) != plan.get(name)]
    if changed:
        name = changed[0]
        raise TrainingError(
            f"the run in {out} was begun with {name} = {before.get(name)!r}, not {plan.get(name)!r}: "
            "resume with the same settings and data, or name another folder"
        )
