"""Compares LaTeX answers: as text if that is conclusive, else by math-verify in a child process.

A model may answer anything, even a tower of exponents that no computer can evaluate. The process therefore
has a memory limit and is killed after a few seconds; the answer then counts as not equal.
"""

from __future__ import annotations

import atexit
import importlib.util
import json
import re
import select
import subprocess
import sys
from collections import deque
from functools import cache

MAX_CHARS = 400  # of an answer to parse
MAX_MARKS = 64  # marked answers that are examined
TIMEOUT_SECONDS = 5.0  # of one comparison
START_SECONDS = 60.0  # to load the library
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BOX_OR_BRACE = re.compile(rf"{_BOX.pattern}|[{{}}]")
# A match ends where the next bracket opens, so that unclosed brackets cost linear time.
_MATH = re.compile(r"\$\$(.+?)\$\$|\$(.+?)\$|\\\(((?:(?!\\\().)+?)\\\)|\\\[((?:(?!\\\[).)+?)\\\]", re.DOTALL)
# "Answer: 5", "the answer to this is 5", "answer (C)", or "Answer" as a heading; not "the answer fits all 3".
_MARKER = re.compile(
    r"(?:^[#*_ \t]*(?:the )?(?:final |correct )?answer[*_ \t]*\n"
    r"|####"
    r"|\banswer(?: choice| option)?(?: (?:to|for|in)\b[^.!?:=\n]{0,80}?)?[*_\s]*"
    r"(?:[:=]|\b(?:is|was|equals|(?:would|should|must|will) be)\b)"
    r"|\banswer(?: choice| option)?[*_\s]*(?=\([A-Z]\)|(?-i:[B-HJ-Z])\b))"
    rf"[*\s]*(?=(.{{1,{MAX_CHARS}}}))",
    re.IGNORECASE | re.MULTILINE,
)
_DRAFT = re.compile(r"\b(?:first|initial|previous|earlier|original|old|wrong|incorrect)\s+$", re.IGNORECASE)
_DROPPED = re.compile(r"\\(?:left|right|displaystyle|,|!|;|:| )|\s+|\$")
TEXT = re.compile(r"\\(?:text|mathrm|textbf|mbox)\s*\{([^{}]*)\}")


def final_expression(answer: str) -> str | None:
    """Returns the final LaTeX of an answer: its last box, marked answer or formula; None if it has none."""
    if (box := last_box(answer)) is not None:
        return box
    marked = marked_texts(answer)
    # Many answers end in "I hope that the answer is clear", which is not an answer.
    text = next((text for text in marked if re.search(r"[\d\\$]", text)), marked[0] if marked else answer)
    formulas = _MATH.findall(text)
    if formulas:
        return str(next(part for part in formulas[-1] if part)).strip()
    return text.strip().rstrip(".* ") if marked else None


def marked_texts(answer: str) -> list[str]:
    """Returns the text after each `####` or "answer is", to the end of its line; the last one first.

    Of more than `MAX_MARKS`, only the last ones count.
    """
    marks = (mark for mark in _MARKER.finditer(answer) if not _is_draft(answer, mark.start()))
    return [mark[1] for mark in deque(marks, MAX_MARKS)][::-1]


def first_mark(answer: str) -> int | None:
    """Returns the position of the first box or marked answer; None if there is none."""
    marks = [mark.start() for mark in (_BOX.search(answer), _MARKER.search(answer)) if mark]
    return min(marks, default=None)


def _is_draft(answer: str, start: int) -> bool:
    """Returns whether a mark belongs to an answer that the model calls preliminary: "my first answer"."""
    return _DRAFT.search(answer[max(0, start - 20) : start]) is not None


def last_box(answer: str) -> str | None:
    """Returns the content of the last closed `\\boxed{}`, with balanced braces; None if there is none.

    One pass over the braces, because a model that repeats itself may open thousands of boxes.
    """
    last: tuple[int, int] | None = None
    opened: list[int] = []  # position after each open brace; negative unless it opens a box
    for brace in _BOX_OR_BRACE.finditer(answer):
        if brace[0] != "}":
            opened.append(brace.end() if len(brace[0]) > 1 else -1)
        elif opened and (start := opened.pop()) >= 0:
            is_short = brace.start() - start < MAX_CHARS
            if is_short and (last is None or start > last[0]):
                last = start, brace.start()
    return answer[last[0] : last[1]].strip() if last else None


def same_text(first: str, second: str) -> bool:
    """Returns whether two expressions differ only in spaces, sizes of brackets and kinds of fractions."""
    return _plain(first) == _plain(second)


def equivalent(answer: str, reference: str) -> bool | None:
    """Returns whether two expressions are equal; None if the reference or math-verify cannot be used."""
    if same_text(answer, reference):
        return True
    if not is_available() or len(reference) > MAX_CHARS:
        return None
    if not answer or len(answer) > MAX_CHARS:
        return False
    return _worker().compare(answer, reference)


@cache
def is_available() -> bool:
    """Returns whether math-verify is installed (it comes with `ascl[eval]`)."""
    return importlib.util.find_spec("math_verify") is not None


def _plain(text: str) -> str:
    text = TEXT.sub(r"\1", text).replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    return _DROPPED.sub("", text).rstrip(".")


class _Worker:
    """The child process that compares; started on first use, and again after a failure."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._broken = False

    def compare(self, answer: str, reference: str) -> bool | None:
        """Compares once; False if it times out or kills the process, None if no process starts."""
        process = self._start()
        if process is None:
            return None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps([reference, answer]) + "\n")
            process.stdin.flush()
            ready, _, _ = select.select([process.stdout], [], [], TIMEOUT_SECONDS)
            line = process.stdout.readline() if ready else ""
            verdict: bool | None = json.loads(line)
        except (OSError, ValueError):
            self.stop()
            return False
        return verdict

    def _start(self) -> subprocess.Popen[str] | None:
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
        """Kills the process, if there is one."""
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
