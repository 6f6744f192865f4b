"""Where the experiments start from: cold starts on our own demonstrations, made once and kept.

`mild` learns from the demonstrations that consult and from six of those that answer directly: it consults in
two cases of three, somewhat more often where it should. `locked-in` goes on from there with calls alone,
whatever the prompt: it consults about everything, the habit that training must be able to unlearn. It never
learnt to answer after a call, which the decision alone does not need. Whole episodes do: `whole` learns from
all demonstrations, `habitual` goes on from there with those that consult, to their end, and `locked-in-whole`
from there with the same ones, until it consults about everything and answers all the same.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from agent.episode import read_log
from trainer.models import prepare_local_model
from trainer.stages.sft.stage import DEMONSTRATIONS, SFTSettings, run_sft


@dataclass(frozen=True)
class ColdStart:
    """What one learns from: on top of which other one, and for how many epochs."""

    onto: str | None
    direct: int | None
    """How many demonstrations that answer directly; None for all."""
    answer_share: float
    epochs: float


STARTS = {
    "mild": ColdStart(None, 6, 1.0, 1.5),
    "locked-in": ColdStart("mild", 0, 0.0, 1.0),
    "whole": ColdStart(None, None, 1.0, 1.5),
    "habitual": ColdStart("whole", 0, 1.0, 1.0),
    "locked-in-whole": ColdStart("habitual", 0, 1.0, 2.0),
}


def cold_start(name: str, cache: Path, base: Path) -> Path:
    """The model folder of a cold start, trained when it is not there yet (some minutes).

    Args:
        name: one of `STARTS`.
        cache: folder under which it is kept.
        base: folder of the untrained model, made when missing (`ascl-train local-model`).

    Raises:
        ValueError: for another name.
        TrainingError, LocalModelError: the model cannot be made or trained.
    """
    if name not in STARTS:
        raise ValueError(f"there is no cold start '{name}': there are {', '.join(STARTS)}")
    out = cache / f"cold-start-{name}"
    if not (out / "run.json").is_file():
        how = STARTS[name]
        run_sft(
            SFTSettings(
                model=cold_start(how.onto, cache, base) if how.onto else prepare_local_model(base),
                out=out,
                demonstrations=_demonstrations(out / "demonstrations.jsonl", how.direct),
                answer_share=how.answer_share,
                epochs=how.epochs,
                lora_layers=12,
                seed=0,
            )
        )
    return out / "merged"


def _demonstrations(path: Path, direct: int | None) -> Path:
    """A copy of our demonstrations: those that consult, and some of the direct ones, or all."""
    episodes = read_log(DEMONSTRATIONS).episodes
    kept = {episode.id for episode in episodes if episode.mode == "consult"}
    answered = [episode.id for episode in episodes if episode.mode == "direct"]
    if direct is None:
        kept |= set(answered)
    elif direct:
        kept |= set(answered[:: len(answered) // direct][:direct])
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps(episode.model_dump(mode="json"), ensure_ascii=False)
        for episode in episodes
        if episode.id in kept
    ]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path
