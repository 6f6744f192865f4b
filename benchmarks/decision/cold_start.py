"""Where the experiment starts from: two cold starts on our own demonstrations, made once and kept.

`mild` learns from the demonstrations that consult and from six of those that answer directly: it consults in
two cases of three, somewhat more often where it should. `locked-in` goes on from there with calls alone,
whatever the prompt: it consults about everything, the habit that training must be able to unlearn.
"""

from __future__ import annotations

import json
from pathlib import Path

from agent.log import read_log
from trainer.local_model import prepare_local_model
from trainer.sft import DEMONSTRATIONS, SFTSettings, run_sft

STARTS = ("mild", "locked-in")
DIRECT_KEPT = 6


def cold_start(name: str, cache: Path, base: Path) -> Path:
    """The model folder of a cold start, trained when it is not there yet (some minutes).

    Args:
        name: `mild` or `locked-in`.
        cache: folder under which it is kept.
        base: folder of the untrained model, made when missing (`ascl-train local-model`).

    Raises:
        ValueError: for another name.
        TrainingError, LocalModelError: the model cannot be made or trained.
    """
    if name not in STARTS:
        raise ValueError(f"there is no cold start '{name}': there are {' and '.join(STARTS)}")
    out = cache / f"cold-start-{name}"
    if not (out / "run.json").is_file():
        locked = name == "locked-in"
        run_sft(
            SFTSettings(
                model=cold_start("mild", cache, base) if locked else prepare_local_model(base),
                out=out,
                demonstrations=_demonstrations(out / "demonstrations.jsonl", direct=not locked),
                answer_share=0.0 if locked else 1.0,
                epochs=1.0 if locked else 1.5,
                lora_layers=12,
                seed=0,
            )
        )
    return out / "merged"


def _demonstrations(path: Path, direct: bool) -> Path:
    """A copy of our demonstrations: those that consult, and, if asked for, a few of the direct ones."""
    episodes = read_log(DEMONSTRATIONS).episodes
    kept = {episode.id for episode in episodes if episode.mode == "consult"}
    if direct:
        answered = [episode.id for episode in episodes if episode.mode == "direct"]
        kept |= set(answered[:: len(answered) // DIRECT_KEPT][:DIRECT_KEPT])
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps(episode.model_dump(mode="json"), ensure_ascii=False)
        for episode in episodes
        if episode.id in kept
    ]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path
