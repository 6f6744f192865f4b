"""The process behind `evaluation.latex`: reads [reference, answer] as JSON lines, says true, false or null.

Only LaTeX is parsed. math-verify's reading of plain expressions evaluates them as Python, and is left off.
"""

from __future__ import annotations

import json
import logging
import resource
import sys

MEMORY = 2 * 2**30  # bytes


def main() -> None:
    """Answer until the input ends; null where the reference cannot be read."""
    from math_verify import LatexExtractionConfig, parse, verify

    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    only_latex = [LatexExtractionConfig()]

    def read(text: str) -> list[object]:
        # The process that asked ends this one when it takes too long.
        return list(parse(f"${text}$", only_latex, fallback_mode="no_fallback", parsing_timeout=None))

    print("ready", flush=True)
    for line in sys.stdin:
        reference, answer = json.loads(line)
        verdict: bool | None = False
        try:
            gold = read(reference)
            verdict = bool(verify(gold, read(answer), timeout_seconds=None)) if gold else None
        except Exception:  # a library of many parsers: whatever it trips over, the next line is read
            verdict = False
        print(json.dumps(verdict), flush=True)


if __name__ == "__main__":
    main()
