"""Formats episodes and consultations as short plain-text lines for the terminal."""

from __future__ import annotations

import unicodedata

from agent.episode.schema import Consultation, Episode


def consultation_line(consultation: Consultation, *, timed: bool = True) -> str:
    """Returns one line: the rules that the service returned, or why it returned none."""
    if consultation.error is not None:
        return f"rules: {one_line(consultation.error, 160)}"
    rules = ", ".join(f"{rule.id} ({rule.stance})" for rule in consultation.rules)
    duration = f" [{consultation.seconds * 1000:.0f} ms]" if timed else ""
    return f"rules: {rules or 'none applies'}{duration}"


def episode_lines(episode: Episode, width: int = 160) -> list[str]:
    """Returns a finished episode as a few lines, each at most about `width` characters."""
    head = f"{episode.prompt_id}#{episode.sample_index} {episode.kind or ''}".strip()
    lines = [f"{head}: {one_line(episode.prompt, width)}"]
    for consultation in episode.consultations:
        question = consultation.situation if consultation.situation is not None else consultation.arguments
        lines.append(f"  consults: {one_line(question, width)}")
        lines.append(f"  {consultation_line(consultation)}")
    if episode.error is not None:
        lines.append(f"  error: {one_line(episode.error.message, 2 * width)}")
    answer = one_line(episode.answer, width) if episode.answer else "(none)"
    lines.append(f"  {episode.stop_reason}: {answer} [{episode.mode}, {episode.seconds:.1f} s]")
    return lines


def strip_control_characters(text: str) -> str:
    """Returns `text` without control characters other than newline and tab."""
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) != "Cc")


def one_line(text: str, width: int) -> str:
    """Returns `text` on one line without control characters, cut to `width` characters."""
    flat = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return flat if len(flat) <= width else flat[: width - 1] + "…"
