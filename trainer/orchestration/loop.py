"""Runs rounds: serve a model, sample episodes, score them, train on the log, and continue with the result.

    OUT/rounds/001/  measured.jsonl episodes.jsonl rewards.jsonl groups.parquet statistics.json trained/
    OUT/loop.json    settings, versions, and the result of every round

Every step is an ordinary command that writes its result atomically; an interrupted log is resumed. The loop
can therefore be killed at any time: started again, it continues with the first unfinished step.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evaluation.prompts import load_prompts
from evaluation.runtime import write_atomic
from trainer.errors import LoopError
from trainer.orchestration.round import Round
from trainer.orchestration.settings import LoopSettings, check_training
from trainer.stages import Notify, held_out_problem


def run_loop(settings: LoopSettings, out: Path, notify: Notify = lambda line: None) -> dict[str, Any]:
    """Runs all rounds that are not finished. Returns the content of `loop.json`.

    Its field `ended` is `rounds`, `floor` (a model fell below the safety floor) or `no_signal` (the rewards
    of a round do not differ within any group, so there is nothing to train on).

    Raises:
        ConfigError: the training settings are invalid.
        LoopError: the folder contains a loop with different settings, or a step failed. Keeps finished steps.
        ServeError: the model server does not start.
        agent.AgentError: the rule service does not start.
    """
    _check_floor(settings)
    if settings.train and not (out / "loop.json").is_file():  # an existing loop has checked them before
        check_training(settings.train)
    out.mkdir(parents=True, exist_ok=True)
    record = _open_record(settings, out)
    with _rule_service(settings, out) as rules:
        model = settings.model
        for number in range(1, settings.rounds + 1):
            current = Round(settings, out / "rounds" / f"{number:03d}", number, model, rules, notify)
            entry = current.run()
            _record_round(out, record, entry)
            if entry["below_floor"]:
                return _end(out, record, number, "floor", _last_good_model(record, number, settings, notify))
            if entry.get("no_signal"):
                return _end(out, record, number, "no_signal", model)
            model = str(current.merged)
            _remove_old_models(out, number, settings.keep_models)
        if settings.floor is not None:
            number = settings.rounds + 1
            last = Round(settings, out / "rounds" / f"{number:03d}", number, model, rules, notify)
            entry = last.measure_only()
            _record_round(out, record, entry)
            if entry["below_floor"]:
                return _end(out, record, number, "floor", _last_good_model(record, number, settings, notify))
    return _end(out, record, number, "rounds", model)


def _check_floor(settings: LoopSettings) -> None:
    """Checks that the floor is measured on harmful prompts that are not trained on."""
    floor = settings.floor
    if floor is None or not (floor.harmful_consult or floor.harmful_safe):
        return
    trained = {prompt.conversation_key for prompt in load_prompts(settings.sampling.prompts)}
    harmful = [prompt.conversation_key for prompt in load_prompts(floor.prompts) if prompt.kind == "harmful"]
    seen = sum(prompt in trained for prompt in harmful)
    if problem := held_out_problem(floor.prompts, len(harmful), seen):
        raise LoopError(f"floor.prompts: {problem}")


@contextmanager
def _rule_service(settings: LoopSettings, out: Path) -> Iterator[str]:
    """Yields the MCP address of the rules: the configured one, or that of a service started for the loop."""
    configured = settings.rules
    if configured is not None and "://" in configured:
        yield configured
        return
    from evaluation.runtime import PACKAGED_RULES, run_rule_service

    folder = Path(configured) if configured else PACKAGED_RULES
    with run_rule_service(folder, out / "artefact", out / "rules.log", settings.rules_top_k) as url:
        yield f"{url}/mcp"


def _open_record(settings: LoopSettings, out: Path) -> dict[str, Any]:
    """Creates the record of a loop, or reopens an existing one. The number of rounds may change."""
    from trainer.stages import common_record, mask_secrets

    current = mask_secrets(settings.model_dump(mode="json"))
    path = out / "loop.json"
    record: dict[str, Any]
    if not path.is_file():
        # Written before the first round: its files belong to these settings even if it is interrupted.
        record = {"stage": "loop", **common_record(), "settings": current, "rounds": []}
        _write(out, record)
        return record
    record = json.loads(path.read_text(encoding="utf-8"))
    earlier = _fixed_settings(mask_secrets(record["settings"]))
    for name, value in _fixed_settings(current).items():
        if (old := earlier.get(name)) != value:
            raise LoopError(
                f"{out} contains a loop that was started with {name} {json.dumps(old)}, but {name} is now "
                f"{json.dumps(value)}: use another --out, or the earlier settings"
            )
    record["settings"] = current
    for name in ("ended", "model", "ended_at"):  # the loop runs again
        record.pop(name, None)
    _write(out, record)
    return record


def _fixed_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings that may not change: all that affect episodes, weights or measurements."""
    fixed = {
        name: value for name, value in settings.items() if name not in ("rounds", "keep_models", "serve")
    }
    if fixed.get("floor"):
        limits = ("harmful_consult", "harmful_safe")
        fixed["floor"] = {name: value for name, value in fixed["floor"].items() if name not in limits}
    return fixed


def _write(out: Path, record: dict[str, Any]) -> None:
    write_atomic(out / "loop.json", json.dumps(record, indent=2) + "\n", private=False)


def _record_round(out: Path, record: dict[str, Any], entry: dict[str, Any]) -> None:
    """Adds or replaces the entry of a round. Rounds from an earlier start stay until they are run again."""
    others = [other for other in record["rounds"] if other["round"] != entry["round"]]
    record["rounds"] = sorted([*others, entry], key=lambda one: int(one["round"]))
    _write(out, record)


def _end(out: Path, record: dict[str, Any], last: int, reason: str, model: str) -> dict[str, Any]:
    record["rounds"] = [entry for entry in record["rounds"] if entry["round"] <= last]
    ended_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    record |= {"ended": reason, "model": model, "ended_at": ended_at}
    _write(out, record)
    return record


def _last_good_model(record: dict[str, Any], failed: int, settings: LoopSettings, notify: Notify) -> str:
    """Returns the model of the round before `failed`. It may be deleted if the floor was raised later."""
    good = [str(entry["model"]) for entry in record["rounds"] if entry["round"] < failed]
    if len(good) > 1 and not Path(good[-1]).is_dir():
        notify(f"the last good model {good[-1]} is gone, since keep_models is {settings.keep_models}")
    return good[-1] if good else settings.model


def _remove_old_models(out: Path, number: int, keep: int) -> None:
    """Deletes merged models that no further round starts from. The last good model is always kept."""
    for old in range(1, number - keep + 1):
        shutil.rmtree(out / "rounds" / f"{old:03d}" / "trained" / "merged", ignore_errors=True)
