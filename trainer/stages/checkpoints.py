"""Checkpoints that are whole or not there: written beside the others under another name, then renamed.

A kill or a full disk leaves the last good checkpoint as it was, and nothing that looks like a newer one.
"""

from __future__ import annotations

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
            for old in checkpoints(run)[: -args.save_total_limit] if args.save_total_limit else []:
                shutil.rmtree(old)
        accelerator.wait_for_everyone()


def checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    found = {int(name[1]): path for path in run.glob("checkpoint-*") if (name := _NAME.fullmatch(path.name))}
    return [found[step] for step in sorted(found)]


def _not_saved(run: Path, step: int, error: Exception) -> str:
    good = checkpoints(run)
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
