"""Iterated batches: serve a model, sample, reward, train on the log, serve the result, and so on.

    OUT/rounds/001/  measured.jsonl episodes.jsonl rewards.jsonl groups.parquet statistics.json trained/
    OUT/loop.json    settings, versions, and what came of every round

Every step is an ordinary command, and leaves its result whole or not at all; the log of a killed run is
continued. So the loop may be killed anywhere: started again, it goes on with the step that was not done.
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
from trainer.errors import LoopError
from trainer.orchestration.round import Round, Tell, write_atomic_text
from trainer.orchestration.settings import LoopSettings, check_training


def run_loop(settings: LoopSettings, out: Path, tell: Tell = lambda line: None) -> dict[str, Any]:
    """Play all rounds that are not done, and return what `loop.json` holds.

    Raises:
        ConfigError: the training would not take its settings.
        LoopError: the folder holds a loop of other settings, or a step failed; what is done stays.
        ServeError: the model's server does not start.
        agent.AgentError: the rule service does not start.
    """
    _check_floor(settings)
    if settings.train and not (out / "loop.json").is_file():  # where it is, they were looked at before
        check_training(settings.train)
    out.mkdir(parents=True, exist_ok=True)
    record = _begun(settings, out)
    with _rules(settings, out) as rules:
        model = settings.model
        for number in range(1, settings.rounds + 1):
            one = Round(settings, out / "rounds" / f"{number:03d}", number, model, rules, tell)
            told = one.play()
            _note(out, record, told)
            if told["below_floor"]:
                return _end(out, record, number, "floor", _last_good(record, number, settings, tell))
            model = str(one.merged)
            _forget_models(out, number, settings.keep_models)
        if settings.floor is not None:
            number = settings.rounds + 1
            last = Round(settings, out / "rounds" / f"{number:03d}", number, model, rules, tell)
            told = last.measure_only()
            _note(out, record, told)
            if told["below_floor"]:
                return _end(out, record, number, "floor", _last_good(record, number, settings, tell))
    return _end(out, record, number, "rounds", model)


def _check_floor(settings: LoopSettings) -> None:
    """A floor says something only over harmful prompts that are not trained on."""
    floor = settings.floor
    if floor is None or not (floor.harmful_consult or floor.harmful_safe):
        return
    trained = {prompt.prompt for prompt in load_prompts(settings.sampling.prompts)}
    harmful = [prompt.prompt for prompt in load_prompts(floor.prompts) if prompt.kind == "harmful"]
    seen = sum(prompt in trained for prompt in harmful)
    if not harmful or seen:
        holds = f"{seen} harmful prompts that are trained on" if seen else "no harmful prompt"
        raise LoopError(
            f"floor.prompts: {floor.prompts} holds {holds}, so no floor can be kept: name harmful prompts "
            "that sampling.prompts does not hold"
        )


@contextmanager
def _rules(settings: LoopSettings, out: Path) -> Iterator[str]:
    """The MCP address of the rules: a given one, or of a service that runs as long as the loop."""
    given = settings.rules
    if given is not None and "://" in given:
        yield given
        return
    from evaluation.runtime import PACKAGED_RULES, run_rule_service

    folder = Path(given) if given else PACKAGED_RULES
    with run_rule_service(folder, out / "artefact", out / "rules.log", settings.rules_top_k) as url:
        yield f"{url}/mcp"


def _begun(settings: LoopSettings, out: Path) -> dict[str, Any]:
    """The record of this loop, new or as it was left; the number of rounds may grow."""
    from trainer.stages import common_record, mask_secrets

    asked = mask_secrets(settings.model_dump(mode="json"))
    path = out / "loop.json"
    record: dict[str, Any]
    if not path.is_file():
        # Before the first round: its files belong to these settings, also where it is not played to its end.
        record = {"stage": "loop", **common_record(), "settings": asked, "rounds": []}
        _write(out, record)
        return record
    record = json.loads(path.read_text(encoding="utf-8"))
    before = _fixed(mask_secrets(record["settings"]))
    for name, value in _fixed(asked).items():
        if (was := before.get(name)) != value:
            raise LoopError(
                f"{out} holds a loop that was begun with {name} {json.dumps(was)}, now {json.dumps(value)}: "
                "use another --out, or the settings it was begun with"
            )
    record["settings"] = asked
    for name in ("ended", "model", "ended_at"):  # it runs again
        record.pop(name, None)
    _write(out, record)
    return record


def _fixed(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings but those that change no episode, no weight and no measurement."""
    fixed = {
        name: value for name, value in settings.items() if name not in ("rounds", "keep_models", "serve")
    }
    if fixed.get("floor"):
        least = ("harmful_consult", "harmful_safe")
        fixed["floor"] = {name: value for name, value in fixed["floor"].items() if name not in least}
    return fixed


def _write(out: Path, record: dict[str, Any]) -> None:
    write_atomic_text(out / "loop.json", json.dumps(record, indent=2) + "\n")


def _note(out: Path, record: dict[str, Any], told: dict[str, Any]) -> None:
    """Put a round in its place; those that an earlier start finished stay until they are told again."""
    others = [one for one in record["rounds"] if one["round"] != told["round"]]
    record["rounds"] = sorted([*others, told], key=lambda one: int(one["round"]))
    _write(out, record)


def _end(out: Path, record: dict[str, Any], last: int, why: str, model: str) -> dict[str, Any]:
    record["rounds"] = [told for told in record["rounds"] if told["round"] <= last]
    record |= {"ended": why, "model": model, "ended_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    _write(out, record)
    return record


def _last_good(record: dict[str, Any], fallen: int, settings: LoopSettings, tell: Tell) -> str:
    """The model of the round before; its files may have been removed where the floor was raised later."""
    good = [str(told["model"]) for told in record["rounds"] if told["round"] < fallen]
    if len(good) > 1 and not Path(good[-1]).is_dir():
        tell(f"the last good model {good[-1]} is gone, since keep_models is {settings.keep_models}")
    return good[-1] if good else settings.model


def _forget_models(out: Path, number: int, keep: int) -> None:
    """Remove merged models that no further round starts from; the last good one is always kept."""
    for old in range(1, number - keep + 1):
        shutil.rmtree(out / "rounds" / f"{old:03d}" / "trained" / "merged", ignore_errors=True)
