"""Plays random conversations through the gateway: `python -m tests.fuzz.fuzz_gateway --seconds 120`.

Seeds continue where the last run ended, and counts add up over runs in `build/fuzz/gateway.json`. Seeds that
failed are tried first in the next run. Exit code 1 when an invariant is broken.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from tests.agent.gateway.compose import play

STATE = Path(__file__).resolve().parents[2] / "build" / "fuzz" / "gateway.json"
CONVERSATIONS = 6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--state", type=Path, default=STATE)
    parser.add_argument("--seed", type=int, help="play this seed only and print what it breaks")
    options = parser.parse_args()
    if options.seed is not None:
        faults = play_seed(options.seed)
        print("\n".join(faults) or "no invariant is broken")
        return 1 if faults else 0
    state = _read(options.state)
    retried, deadline = list(state["failed"]), time.monotonic() + options.seconds
    fixed, broken, played = [], {}, 0
    while time.monotonic() < deadline:
        seed = retried.pop(0) if retried else state["next_seed"]
        if seed == state["next_seed"]:
            state["next_seed"] += 1
        faults = play_seed(seed)
        played += CONVERSATIONS
        if faults:
            broken[seed] = faults
            print(f"seed {seed}: {faults[0][:300]}", flush=True)
        elif seed in state["failed"]:
            fixed.append(seed)
        if len(broken) >= 20:
            break
    state["conversations"] += played
    state["failed"] = sorted((set(state["failed"]) | set(broken)) - set(fixed))
    options.state.parent.mkdir(parents=True, exist_ok=True)
    options.state.write_text(json.dumps(state), encoding="utf-8")
    print(
        f"{played} conversations now, {state['conversations']} in all, next seed {state['next_seed']}; "
        f"seeds that break an invariant: {state['failed'] or 'none'}"
    )
    return 1 if state["failed"] else 0


def play_seed(seed: int) -> list[str]:
    """Plays the conversations of a seed, those of odd seeds with hints, and returns the broken invariants."""
    return play(seed, CONVERSATIONS, hint=seed % 2 == 1)


def _read(path: Path) -> dict[str, Any]:
    if path.is_file():
        return dict(json.loads(path.read_text(encoding="utf-8")))
    return {"next_seed": 0, "conversations": 0, "failed": []}


if __name__ == "__main__":
    sys.exit(main())
