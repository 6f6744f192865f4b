"""What happens, told to a person: a conversation as it comes, and finished episodes in a few lines."""

from __future__ import annotations

import sys
from typing import TextIO

from agent.episode import Episode, Event, consultation_line, strip_control_characters

_TAG = "<tool_call>"


class LiveTrace:
    """Shows one conversation as it happens: the answer on `out`, everything else on `err`.

    Text that may turn out to be a `<tool_call>` is held back until that is known.
    """

    def __init__(self, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._err = err or sys.stderr
        self._colour = self._err.isatty()
        self._terminal = self._out.isatty()
        self._held = ""
        self._said = ""
        self._thinking = False

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if event.kind == "content":
            self._content(event.text)
            return
        if event.kind == "reasoning":
            self._aside(event.text, begin=not self._thinking, prefix="thinks: ")
            self._thinking = True
            return
        if event.kind == "call":
            self._line(f"consults: {event.text}")
        elif event.kind == "consulted" and event.consultation is not None:
            self._line(consultation_line(event.consultation))
        elif event.kind in ("retry", "warning"):
            self._line(f"{event.kind}: {event.text}")

    def finish(self, episode: Episode) -> None:
        """End the answer with a newline; say why there is none."""
        self._end_thought()
        answer = episode.answer or ""
        # A reply that was not streamed (ours, or from a server that sends it whole) was not shown yet.
        if not self._said and answer:
            self._out.write(answer)
            self._said = answer
        elif self._held and _TAG not in self._held:
            self._out.write(self._held)
        if self._said and not self._said.endswith("\n"):
            self._out.write("\n")
        self._out.flush()
        self._held, self._said = "", ""
        if episode.error is not None and episode.stop_reason == "error":
            self._line(f"error: {episode.error.message}")
        elif not answer:
            self._line(f"no answer: the episode ended with {episode.stop_reason}")

    def _content(self, text: str) -> None:
        self._end_thought()
        # A model must not steer a person's terminal; into a file its text goes as it is.
        self._held += strip_control_characters(text) if self._terminal else text
        if _TAG in self._held:
            return
        keep = next((n for n in range(len(_TAG) - 1, 0, -1) if self._held.endswith(_TAG[:n])), 0)
        ready = self._held[: len(self._held) - keep]
        self._held = self._held[len(ready) :]
        self._out.write(ready)
        self._out.flush()
        self._said += ready

    def _line(self, text: str) -> None:
        self._end_thought()
        self._held = ""
        if self._said and not self._said.endswith("\n"):
            self._out.write("\n")
            self._out.flush()
            self._said += "\n"
        self._aside(text + "\n", begin=True)

    def _end_thought(self) -> None:
        if self._thinking:
            self._err.write("\n")
            self._err.flush()
            self._thinking = False

    def _aside(self, text: str, *, begin: bool, prefix: str = "") -> None:
        text = (f"· {prefix}" if begin else "") + strip_control_characters(text)
        self._err.write(f"\x1b[2m{text}\x1b[0m" if self._colour else text)
        self._err.flush()
