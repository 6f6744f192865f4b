"""Where the experiment starts from: two cold starts on our own demonstrations, made once and kept.

`mild` learns from all demonstrations, which consult in two cases of three. `locked-in` learns from those that
consult, and from a few that answer directly: it consults about everything, which is the habit that training
must be able to unlearn.
"""

from __future__ import annotations

import json
from pathlib import Path

from agent.log import read_log
from trainer.local_model import prepare_local_model
from trainer.sft import DEMONSTRATIONS, SFTSettings, run_sft

DIRECT_KEPT = {"mild": None, "locked-in": 6}
"""How many of the demonstrations that answer directly each start learns from; None is all of them."""


def cold_start(name: str, cache: Path, base: Path) -> Path:
    """The model folder of a cold start, trained when it is not there yet (some minutes).

    Args:
        name: `mild` or `locked-in`.
        cache: folder under which it is kept.
        base: folder of the untrained model, made when missing (`ascl-train local-model`).

    Raises:
        TrainingError, LocalModelError: the model cannot be made or trained.
    """
    out = cache / f"cold-start-{name}"
    if not (out / "run.json").is_file():
        demonstrations = _demonstrations(out / "demonstrations.jsonl", DIRECT_KEPT[name])
        run_sft(
            SFTSettings(
                model=prepare_local_model(base),
                out=out,
                demonstrations=demonstrations,
                epochs=1.5,
                lora_layers=12,
                seed=0,
            )
        )
    return out / "merged"


def _demonstrations(path: Path, direct_kept: int | None) -> Path:
    """A copy of our demonstrations with `direct_kept` of the direct ones, spread evenly over the file."""
    episodes = read_log(DEMONSTRATIONS).episodes
    direct = [episode.id for episode in episodes if episode.mode == "direct"]
    kept = set(
        direct if direct_kept is None else direct[:: max(1, len(direct) // max(1, direct_kept))][:direct_kept]
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps(episode.model_dump(mode="json"), ensure_ascii=False)
        for episode in episodes
        if episode.mode == "consult" or episode.id in kept
    ]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path
