"""Checkpoints that are whole or not there: written beside the others under another name, then renamed.

A kill or a full disk leaves the last good checkpoint as it was, and nothing that looks like a newer one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from trainer.errors import TrainingError

_NAME = re.compile(r"checkpoint-(\d+)")
_PARTIAL = ".partial"


class AtomicCheckpoints:
    """Before a `transformers.Trainer` among the bases: its `_save_checkpoint`, made atomic.

    Raises:
        TrainingError: a checkpoint cannot be written; what was written of it is removed.
    """

    _saving: Path | None = None

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._saving or super()._get_output_dir(trial))  # type: ignore[misc]

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        run = Path(self._get_output_dir(trial))
        accelerator, args = self.accelerator, self.args  # type: ignore[attr-defined]
        self._saving = run / _PARTIAL
        try:
            if args.should_save:
                shutil.rmtree(self._saving, ignore_errors=True)
            accelerator.wait_for_everyone()
            super()._save_checkpoint(model, trial)  # type: ignore[misc]
        except (OSError, RuntimeError, SafetensorError) as error:
            shutil.rmtree(self._saving, ignore_errors=True)
            raise TrainingError(_not_saved(run, self.state.global_step, error)) from error  # type: ignore[attr-defined]
        finally:
            partial, self._saving = self._saving, None
        accelerator.wait_for_everyone()
        if args.should_save:
            for folder in partial.iterdir():
                _to_disk(folder)
                shutil.rmtree(run / folder.name, ignore_errors=True)
                folder.rename(run / folder.name)
            partial.rmdir()
            for old in list_checkpoints(run)[: -args.save_total_limit] if args.save_total_limit else []:
                shutil.rmtree(old)
        accelerator.wait_for_everyone()


def list_checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    found = {int(name[1]): path for path in run.glob("checkpoint-*") if (name := _NAME.fullmatch(path.name))}
    return [found[step] for step in sorted(found)]


def _not_saved(run: Path, step: int, error: Exception) -> str:
    good = list_checkpoints(run)
    kept = f"the last good one is {good[-1]}" if good else "there is no earlier one"
    cause = (str(error).strip() or type(error).__name__).splitlines()[0]
    return (
        f"the checkpoint of step {step} cannot be written to {run} ({cause}); {kept}: "
        "make room there, then run the same command with --resume"
    )


def _to_disk(folder: Path) -> None:
    """Make sure that a rename is not on disk before what it names."""
    for path in [*folder.rglob("*"), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


_PLAN = "plan.json"


def begin_or_resume(out: Path, plan: dict[str, Any], resume: bool, first: bool = True) -> Path | None:
    """The checkpoint to go on from; None to start at the beginning. The plan is kept beside the checkpoints.

    Args:
        first: of several processes, the first one looks whether this may go on, and writes; the others follow
            when it has.

    Raises:
        TrainingError: the folder holds an earlier run's checkpoints and `resume` is off, or its plan differs.
    """
    plan = json.loads(json.dumps(plan, default=str))
    found = list_checkpoints(out)
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
