"""TODO: docstring."""

from __future__ import annotations

import unicodedata

from agent.episode.schema import Consultation, Episode


def consultation_line(consultation: Consultation, *, timed: bool = True) -> str:
    """One line: the rules that came back, or why none did."""
    if consultation.error is not None:
        return f"rules: {one_line(consultation.error, 160)}"
    rules = ", ".join(f"{rule.id} ({rule.stance})" for rule in consultation.rules)
    took = f" [{consultation.seconds * 1000:.0f} ms]" if timed else ""
    return f"rules: {rules or 'none applies'}{took}"


def episode_lines(episode: Episode, width: int = 160) -> list[str]:
    """A finished episode in a few plain lines, each at most about `width` characters."""
    head = f"{episode.prompt_id}#{episode.sample_index} {episode.kind or ''}".strip()
    lines = [f"{head}: {one_line(episode.prompt, width)}"]
    for consultation in episode.consultations:
        asked = consultation.situation if consultation.situation is not None else consultation.arguments
        lines.append(f"  consults: {one_line(asked, width)}")
        lines.append(f"  {consultation_line(consultation)}")
    if episode.error is not None:
        lines.append(f"  error: {one_line(episode.error.message, 2 * width)}")
    answer = episode.answer
    said = one_line(answer, width) if answer else "(none)"
    lines.append(f"  {episode.stop_reason}: {said} [{episode.mode}, {episode.seconds:.1f} s]")
    return lines


def strip_control_characters(text: str) -> str:
    """`text` without control characters other than newline and tab."""
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) != "Cc")


def one_line(text: str, width: int) -> str:
    """`text` on one line without control characters, cut at `width` characters."""
    flat = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return flat if len(flat) <= width else flat[: width - 1] + "…"
