"""Cold starts of the experiments, trained on the packaged demonstrations and cached.

    python -m benchmarks.learning.decision.model.cold_start --start locked-in

- `mild`: trained on the demonstrations that consult and on six that answer directly. It consults on two of
  three prompts, slightly more often where it should.
- `locked-in`: `mild`, trained further on calls only. It consults on every prompt, a habit that training must
  be able to unlearn. It cannot answer after a call, which the decision experiment does not need.
- `whole`: trained on all demonstrations, for experiments with whole episodes.
- `habitual`: `whole`, trained further on complete demonstrations that consult.
- `locked-in-whole`: `habitual`, trained further on the same demonstrations until it consults on every prompt.
  It still answers afterwards.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

from agent.episode import read_log
from trainer.models import prepare_local_model
from trainer.stages.sft.stage import DEMONSTRATIONS, SFTSettings, run_sft


@dataclass(frozen=True)
class ColdStart:
    """Training data and epochs of a cold start."""

    base: str | None
    """The cold start to continue from; None for the untrained model."""
    direct: int | None
    """Number of demonstrations that answer directly; None for all."""
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
    """Returns the model folder of a cold start. Trains it if it is missing, which takes minutes.

    Args:
        name: one of `STARTS`.
        cache: folder that contains the cold starts.
        base: folder of the untrained model, created if missing (`ascl-train local-model`).

    Raises:
        ValueError: unknown name.
        TrainingError: the training failed.
        LocalModelError: the untrained model cannot be created.
    """
    if name not in STARTS:
        raise ValueError(f"unknown cold start '{name}': use one of {', '.join(STARTS)}")
    out = cache / f"cold-start-{name}"
    if not (out / "run.json").is_file():
        start = STARTS[name]
        run_sft(
            SFTSettings(
                model=cold_start(start.base, cache, base) if start.base else prepare_local_model(base),
                out=out,
                demonstrations=_demonstrations(out / "demonstrations.jsonl", start.direct),
                answer_share=start.answer_share,
                epochs=start.epochs,
                lora_layers=12,
                seed=0,
            )
        )
    return out / "merged"


def _demonstrations(path: Path, direct: int | None) -> Path:
    """Writes the demonstrations that consult, and `direct` of the others (None for all). Returns the path."""
    episodes = read_log(DEMONSTRATIONS).episodes
    selected = {episode.id for episode in episodes if episode.mode == "consult"}
    direct_ids = [episode.id for episode in episodes if episode.mode == "direct"]
    if direct is None:
        selected |= set(direct_ids)
    elif direct:
        selected |= set(direct_ids[:: len(direct_ids) // direct][:direct])
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps(episode.model_dump(mode="json"), ensure_ascii=False)
        for episode in episodes
        if episode.id in selected
    ]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--start", required=True, choices=tuple(STARTS), help="cold start to train")
    parser.add_argument("--cache", type=Path, default=Path("runs/benchmarks/decision"))
    parser.add_argument("--base", type=Path, default=Path(".cache/models/smollm2-135m"))
    options = parser.parse_args()
    print(cold_start(options.start, options.cache, options.base))


if __name__ == "__main__":
    main()
