"""Displays a conversation on the terminal while it runs."""

from __future__ import annotations

import sys
from typing import TextIO

from agent.episode import Episode, Event, consultation_line, strip_control_characters

_TAG = "<tool_call>"


class LiveTrace:
    """Event listener that writes the answer to `out` and everything else to `err`.

    Withholds text that may be the start of a `<tool_call>` until the tag is complete or ruled out.
    """

    def __init__(self, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._err = err or sys.stderr
        self._colour = self._err.isatty()
        self._terminal = self._out.isatty()
        self._pending = ""
        self._shown = ""
        self._in_reasoning = False

    def __call__(self, event: Event) -> None:
        """Displays one event."""
        if event.kind == "content":
            self._content(event.text)
            return
        if event.kind == "reasoning":
            self._note(event.text, start=not self._in_reasoning, prefix="thinks: ")
            self._in_reasoning = True
            return
        if event.kind == "call":
            self._line(f"consults: {event.text}")
        elif event.kind == "consulted" and event.consultation is not None:
            self._line(consultation_line(event.consultation))
        elif event.kind in ("retry", "warning"):
            self._line(f"{event.kind}: {event.text}")

    def finish(self, episode: Episode) -> None:
        """Ends the answer with a newline, or displays why there is no answer."""
        self._end_reasoning()
        answer = episode.answer or ""
        # An unstreamed reply (the agent's refusal, or from a server without streams) was not displayed yet.
        if not self._shown and answer:
            self._out.write(answer)
            self._shown = answer
        elif self._pending and _TAG not in self._pending:
            self._out.write(self._pending)
        if self._shown and not self._shown.endswith("\n"):
            self._out.write("\n")
        self._out.flush()
        self._pending, self._shown = "", ""
        if episode.error is not None and episode.stop_reason == "error":
            self._line(f"error: {episode.error.message}")
        elif not answer:
            self._line(f"no answer: the episode ended with {episode.stop_reason}")

    def _content(self, text: str) -> None:
        self._end_reasoning()
        # A model must not control the user's terminal; a file receives its text unchanged.
        self._pending += strip_control_characters(text) if self._terminal else text
        if _TAG in self._pending:
            return
        keep = next((n for n in range(len(_TAG) - 1, 0, -1) if self._pending.endswith(_TAG[:n])), 0)
        ready = self._pending[: len(self._pending) - keep]
        self._pending = self._pending[len(ready) :]
        self._out.write(ready)
        self._out.flush()
        self._shown += ready

    def _line(self, text: str) -> None:
        self._end_reasoning()
        self._pending = ""
        if self._shown and not self._shown.endswith("\n"):
            self._out.write("\n")
            self._out.flush()
            self._shown += "\n"
        self._note(text + "\n", start=True)

    def _end_reasoning(self) -> None:
        if self._in_reasoning:
            self._err.write("\n")
            self._err.flush()
            self._in_reasoning = False

    def _note(self, text: str, *, start: bool, prefix: str = "") -> None:
        text = (f"· {prefix}" if start else "") + strip_control_characters(text)
        self._err.write(f"\x1b[2m{text}\x1b[0m" if self._colour else text)
        self._err.flush()
