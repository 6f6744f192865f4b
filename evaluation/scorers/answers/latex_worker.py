"""Child process of `latex`: reads [reference, answer] as JSON lines, answers true, false or null.

Parses LaTeX only: math-verify would evaluate plain expressions as Python.
"""

from __future__ import annotations

import json
import logging
import resource
import sys

MAX_MEMORY_BYTES = 2 * 2**30


def main() -> None:
    """Answers until the input ends; null if the reference cannot be read."""
    from math_verify import LatexExtractionConfig, parse, verify

    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    latex_only = [LatexExtractionConfig()]

    def read(text: str) -> list[object]:
        # No timeout here: the parent kills this process.
        return list(parse(f"${text}$", latex_only, fallback_mode="no_fallback", parsing_timeout=None))

    print("ready", flush=True)
    for line in sys.stdin:
        reference, answer = json.loads(line)
        verdict: bool | None = False
        try:
            gold = read(reference)
            verdict = bool(verify(gold, read(answer), timeout_seconds=None)) if gold else None
        except Exception:  # the library raises many types; the next line must still be read
            verdict = False
        print(json.dumps(verdict), flush=True)


if __name__ == "__main__":
    main()
