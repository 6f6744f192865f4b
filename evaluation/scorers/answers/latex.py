"""Are two LaTeX answers equal? By text where that settles it, else by math-verify in a process of its own.

A model's answer may be anything, also a tower of exponents that no computer finishes: the process has bounded
memory and is ended after some seconds, and the answer then counts as not shown to be equal.
"""

from __future__ import annotations

import atexit
import importlib.util
import json
import re
import select
import subprocess
import sys
from functools import cache

LONGEST = 400  # characters of an answer worth parsing
SECONDS = 5.0  # for one comparison
START_SECONDS = 60.0  # for loading the library
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
# A bracket that never closes is read no further than the next one opens, so that the time stays linear.
_MATH = re.compile(r"\$\$(.+?)\$\$|\$(.+?)\$|\\\(((?:(?!\\\().)+?)\\\)|\\\[((?:(?!\\\[).)+?)\\\]", re.DOTALL)
# "Answer: 5", "the answer to this is 5", "answer (C)", or "Answer" as a heading; not "the answer fits all 3".
_MARKER = re.compile(
    r"(?:^[#*_ \t]*(?:the )?(?:final |correct )?answer[*_ \t]*\n"
    r"|####"
    r"|\banswer(?: choice| option)?(?: (?:to|for|in)\b[^.!?:=\n]{0,80}?)?[*_\s]*"
    r"(?:[:=]|\b(?:is|was|equals|(?:would|should|must|will) be)\b)"
    r"|\banswer(?: choice| option)?[*_\s]*(?=\([A-Z]\)|(?-i:[B-HJ-Z])\b))"
    rf"[*\s]*(?=(.{{1,{LONGEST}}}))",
    re.IGNORECASE | re.MULTILINE,
)
_DROPPED = re.compile(r"\\(?:left|right|displaystyle|,|!|;|:| )|\s+|\$")
TEXT = re.compile(r"\\(?:text|mathrm|textbf|mbox)\s*\{([^{}]*)\}")


def final_expression(answer: str) -> str | None:
    """The LaTeX that an answer ends in: its last box, marked answer or formula; None without one."""
    if (box := last_box(answer)) is not None:
        return box
    marked = marked_texts(answer)
    # "I hope that the answer is clear" stands behind many an answer, and is none.
    text = next((text for text in marked if re.search(r"[\d\\$]", text)), marked[0] if marked else answer)
    formulas = _MATH.findall(text)
    if formulas:
        return str(next(part for part in formulas[-1] if part)).strip()
    return text.strip().rstrip(".* ") if marked else None


def marked_texts(answer: str) -> list[str]:
    """What stands behind each `####` or "answer is", to the end of its line; the last one first."""
    return _MARKER.findall(answer)[::-1]


def last_box(answer: str) -> str | None:
    """What stands in the last `\\boxed{}`, with its own braces balanced; None without a closed one."""
    for start in reversed([match.end() for match in _BOX.finditer(answer)]):
        depth = 1
        for place in range(start, min(len(answer), start + LONGEST)):
            depth += {"{": 1, "}": -1}.get(answer[place], 0)
            if depth == 0:
                return answer[start:place].strip()
    return None


def same_text(one: str, other: str) -> bool:
    """Whether two expressions are the same but for spaces, sizes of brackets and kinds of fractions."""
    return _plain(one) == _plain(other)


def equivalent(answer: str, reference: str) -> bool | None:
    """Whether two expressions are equal; None where the reference cannot be read, or without math-verify."""
    if same_text(answer, reference):
        return True
    if not available() or len(reference) > LONGEST:
        return None
    if not answer or len(answer) > LONGEST:
        return False
    return _worker().ask(answer, reference)


@cache
def available() -> bool:
    """Whether math-verify is installed (it comes with `ascl[eval]`)."""
    return importlib.util.find_spec("math_verify") is not None


def _plain(text: str) -> str:
    text = TEXT.sub(r"\1", text).replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    return _DROPPED.sub("", text).rstrip(".")


class _Worker:
    """The process that compares; started when first asked, and again after it was ended."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._broken = False

    def ask(self, answer: str, reference: str) -> bool | None:
        """One comparison; False when it takes too long or the process dies of it, None when none starts."""
        process = self._running()
        if process is None:
            return None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps([reference, answer]) + "\n")
            process.stdin.flush()
            ready, _, _ = select.select([process.stdout], [], [], SECONDS)
            line = process.stdout.readline() if ready else ""
            found: bool | None = json.loads(line)
        except (OSError, ValueError):
            self.stop()
            return False
        return found

    def _running(self) -> subprocess.Popen[str] | None:
        if self._process is None and not self._broken:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "evaluation.scorers.answers.latex_worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
            )
            assert self._process.stdout is not None
            ready, _, _ = select.select([self._process.stdout], [], [], START_SECONDS)
            if not ready or self._process.stdout.readline() != "ready\n":
                self._broken = True
                self.stop()
        return self._process

    def stop(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            self._process = None


@cache
def _worker() -> _Worker:
    worker = _Worker()
    atexit.register(worker.stop)
    return worker
