"""Atomic checkpoints: written under a temporary name, flushed to disk, then renamed.

A kill or a full disk leaves the last good checkpoint intact, and nothing that looks like a newer one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from evaluation.runtime import write_atomic
from trainer.errors import TrainingError

_CHECKPOINT_NAME = re.compile(r"checkpoint-(\d+)")
_PARTIAL = ".partial"
_PLAN = "plan.json"


class AtomicCheckpoints:
    """Mixin for `transformers.Trainer` that makes `_save_checkpoint` atomic; list it before the trainer.

    Raises:
        TrainingError: a checkpoint cannot be written; the incomplete one is removed.
    """

    _partial_dir: Path | None = None

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._partial_dir or super()._get_output_dir(trial))  # type: ignore[misc]

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        run = Path(self._get_output_dir(trial))
        accelerator, args = self.accelerator, self.args  # type: ignore[attr-defined]
        self._partial_dir = run / _PARTIAL
        try:
            if args.should_save:
                shutil.rmtree(self._partial_dir, ignore_errors=True)
            accelerator.wait_for_everyone()
            super()._save_checkpoint(model, trial)  # type: ignore[misc]
        except (OSError, RuntimeError, SafetensorError) as error:
            shutil.rmtree(self._partial_dir, ignore_errors=True)
            raise TrainingError(_write_error(run, self.state.global_step, error)) from error  # type: ignore[attr-defined]
        finally:
            partial, self._partial_dir = self._partial_dir, None
        accelerator.wait_for_everyone()
        if args.should_save:
            for folder in partial.iterdir():
                _fsync_tree(folder)
                shutil.rmtree(run / folder.name, ignore_errors=True)
                folder.rename(run / folder.name)
            partial.rmdir()
            for old in list_checkpoints(run)[: -args.save_total_limit] if args.save_total_limit else []:
                shutil.rmtree(old)
        accelerator.wait_for_everyone()


def list_checkpoints(run: Path) -> list[Path]:
    """Lists the checkpoints of a run, oldest first."""
    by_step = {
        int(name[1]): path
        for path in run.glob("checkpoint-*")
        if (name := _CHECKPOINT_NAME.fullmatch(path.name))
    }
    return [by_step[step] for step in sorted(by_step)]


def _write_error(run: Path, step: int, error: Exception) -> str:
    good = list_checkpoints(run)
    fallback = f"the last good one is {good[-1]}" if good else "no earlier one exists"
    cause = (str(error).strip() or type(error).__name__).splitlines()[0]
    return (
        f"the checkpoint of step {step} cannot be written to {run} ({cause}); {fallback}: "
        "free disk space there, then run the same command with --resume"
    )


def _fsync_tree(folder: Path) -> None:
    """Flushes a folder to disk, so that a rename cannot reach the disk before the files it names."""
    for path in [*folder.rglob("*"), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def begin_or_resume_together(config: Any, plan: dict[str, Any], resume: bool) -> Path | None:
    """Calls `begin_or_resume` in every process, in the first one before the others.

    Args:
        config: `transformers.TrainingArguments`, whose `output_dir` is the run's folder.
        plan: settings and data of the run; `resume` and `output_dir` are not compared.
    """
    plan = {name: value for name, value in plan.items() if name not in ("resume", "output_dir")}
    with config.main_process_first(local=False, desc="plan"):
        return begin_or_resume(Path(config.output_dir), plan, resume, config.process_index == 0)


def begin_or_resume(out: Path, plan: dict[str, Any], resume: bool, first: bool = True) -> Path | None:
    """Finds the checkpoint to resume from, or returns None for a new run, whose plan it saves in `out`.

    Args:
        first: whether this is rank 0; it alone checks and writes, and must be called before the other ranks.

    Raises:
        TrainingError: the folder holds an earlier run's checkpoints and `resume` is off, or its plan differs.
    """
    plan = json.loads(json.dumps(plan, default=str))
    checkpoints = list_checkpoints(out)
    if not first:
        return checkpoints[-1] if checkpoints else None
    if not resume and checkpoints:
        raise TrainingError(
            f"{out} holds checkpoints of an earlier run, the last of them {checkpoints[-1].name}: "
            "pass --resume to continue from it, or use another folder"
        )
    out.mkdir(parents=True, exist_ok=True)
    if checkpoints:
        _check_plan(out, plan)
        return checkpoints[-1]
    write_atomic(out / _PLAN, json.dumps(plan, indent=2) + "\n", private=False)
    return None


def remove_record(out: Path) -> None:
    """Removes the record of an earlier run. Call it just before its files are replaced: a failure before that
    leaves the record and its files consistent."""
    (out / "run.json").unlink(missing_ok=True)


def _check_plan(out: Path, plan: dict[str, Any]) -> None:
    try:
        saved = json.loads((out / _PLAN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise TrainingError(
            f"{out / _PLAN} is missing or damaged, so the settings of the run in {out} are unknown: "
            "use another folder"
        ) from None
    names = sorted(saved.keys() | plan.keys())
    changed = [name for name in names if saved.get(name) != plan.get(name)]
    if changed:
        name = changed[0]
        raise TrainingError(
            f"the run in {out} was started with {name} = {saved.get(name)!r}, not {plan.get(name)!r}: "
            "resume with the same settings and data, or use another folder"
        )
