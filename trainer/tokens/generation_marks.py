"""Loss masks from the `generation` marks of a chat template."""

from __future__ import annotations


def without_earlier_replies(mask: list[int], earlier: list[int]) -> list[int]:
    """Clears the marks of the replies that precede an episode.

    Tokens cannot be matched by position, because templates render a reply differently once others follow it,
    for example without its reasoning. But they mark it as equally many runs.

    Args:
        mask: (T,) 1 on what the assistant wrote in a conversation.
        earlier: (E,) the same for the messages before the episode, rendered alone.
    """
    result, runs, count = [], 0, _count_runs(earlier)
    for before, flag in zip([0, *mask], mask, strict=False):
        runs += flag and not before
        result.append(flag if runs > count else 0)
    return result


def _count_runs(mask: list[int]) -> int:
    return sum(flag and not before for before, flag in zip([0, *mask], mask, strict=False))
