"""Mode of an episode: whether the model decided to consult the rules or to answer directly.

The decision counts, not its success: a call by name whose arguments do not parse, or that the service did not
answer, is still `consult`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from agent.episode import count_given_messages
from agent.replies import read_reply
from agent.tools import RULE_TOOL

Mode = Literal["consult", "direct"]
MODES: tuple[Mode, ...] = ("consult", "direct")
MAX_LOST_SHARE = 0.5
"""Share of a mode's episodes that may be left out while the other mode keeps a larger share."""
MAX_SHARE_DIFFERENCE = 0.1
"""Difference between the shares left out of both modes above which a warning is due."""


def mode_of(
    messages: Iterable[Mapping[str, Any]], tool: str = RULE_TOOL, *, given: int | None = None
) -> Mode:
    """Returns `consult` if the replies of an episode call `tool` by name, else `direct`.

    Args:
        messages: a conversation in OpenAI form.
        given: number of given messages, as for `consultations_of`.
    """
    return "consult" if consultations_of(messages, tool, given=given) else "direct"


def consultations_of(
    messages: Iterable[Mapping[str, Any]], tool: str = RULE_TOOL, *, given: int | None = None
) -> int:
    """Counts the calls of `tool` by name in the replies of an episode.

    A call that the endpoint could not parse stays in the message's text, in the form of the model's chat
    template. It counts once per message if it names the tool. A call that the text only thinks about does not
    count.

    Args:
        messages: a conversation in OpenAI form.
        given: number of messages before the episode's replies; None for those up to the user's last message.
    """
    count = 0
    conversation = list(messages)
    for message in conversation[count_given_messages(conversation, given) :]:
        if message.get("role") != "assistant":
            continue
        calls = [call.get("function") or call for call in message.get("tool_calls") or []]
        in_message = sum(function.get("name") == tool for function in calls)
        content = message.get("content")
        if not in_message and isinstance(content, str) and tool in content:
            in_message = int(any(call.names(tool) for call in read_reply(content, (tool,)).calls))
        count += in_message
    return count


UNDECIDED = "undecided"
"""In place of the mode, for an episode that ended before its first reply."""


@dataclass
class ModeLosses:
    """Counts of episodes that cannot be trained on, by cause and mode.

    Consulting episodes are longer and use more features of a chat template, so the excluded episodes are
    seldom a random sample: leaving them out changes the decision that is trained.
    """

    totals: Counter[str] = field(default_factory=Counter)
    """Episodes by mode, without the exempt ones."""
    by_cause: dict[str, Counter[str]] = field(default_factory=dict)
    """Episodes left out: cause -> mode -> count."""
    exempted: dict[str, Counter[str]] = field(default_factory=dict)
    """Episodes that the limits ignore: cause -> mode -> count."""

    @classmethod
    def from_record(cls, recorded: Mapping[str, Any]) -> Self:
        """Restores the result of `as_record`."""
        by_cause, exempted = (
            {cause: Counter(counts) for cause, counts in recorded[name].items()}
            for name in ("left_out", "exempt")
        )
        return cls(Counter(recorded["episodes"]), by_cause, exempted)

    def leave_out(self, cause: str, mode: str) -> None:
        """Counts an episode that is left out."""
        self.by_cause.setdefault(cause, Counter())[mode] += 1

    def exempt(self, cause: str, mode: str, count: int = 1) -> None:
        """Counts episodes that the limits ignore, such as copies and those that are alone in their group."""
        self.exempted.setdefault(cause, Counter())[mode] += count

    def exempt_counted(self, cause: str, mode: str, count: int, earlier: str | None = None) -> None:
        """Exempts episodes that are in the totals, and left out because of `earlier` if it is given."""
        if earlier is not None:
            self.by_cause.setdefault(earlier, Counter())[mode] -= count
        self.totals[mode] -= count
        self.exempt(cause, mode, count)

    def after(self, earlier: ModeLosses) -> ModeLosses:
        """Returns the losses of two steps; `self` counts those among the episodes that `earlier` kept."""
        result = ModeLosses.from_record(earlier.as_record())
        for cause, counts in self.by_cause.items():
            result.by_cause.setdefault(cause, Counter()).update(counts)
        return result

    def problem(self, remedies: Mapping[str, str]) -> str | None:
        """Explains why training on the rest would be wrong; returns None if it would be right.

        It is wrong if one mode is lost while the other is not, or loses more than `MAX_LOST_SHARE` of its
        episodes while the other does not.

        Args:
            remedies: cause -> what the user can do about it.
        """
        shares = self._shares()
        for mode, other in (MODES, MODES[::-1]):
            if not self.totals[mode] or not self.totals[other]:
                continue
            lost = shares[mode] == 1 > shares[other]
            if lost or shares[mode] > MAX_LOST_SHARE >= shares[other]:
                return (
                    f"{self._comparison(mode, other)}, so training on the rest would distort the decision "
                    f"to consult: {self._remedy(mode, remedies)}"
                )
        return None

    def warning(self, remedies: Mapping[str, str]) -> str | None:
        """Returns a warning if the shares left out differ by more than `MAX_SHARE_DIFFERENCE`."""
        if not all(self.totals[mode] for mode in MODES):
            return None
        shares = self._shares()
        mode, other = sorted(MODES, key=lambda each: -shares[each])
        if shares[mode] - shares[other] <= MAX_SHARE_DIFFERENCE:
            return None
        return (
            f"warning: {self._comparison(mode, other)}, which distorts the comparison of the modes: "
            f"{self._remedy(mode, remedies)}"
        )

    def record(self) -> dict[str, dict[str, int]]:
        """Returns the counts as plain values, sorted: cause -> mode -> count, with the exempt ones."""
        return {cause: dict(sorted((+counts).items())) for cause, counts in sorted(self._all().items())}

    def as_record(self) -> dict[str, dict[str, Any]]:
        """Returns all counts as plain values, for `from_record`."""
        left_out, exempted = (
            {cause: dict(+counts) for cause, counts in causes.items()}
            for causes in (self.by_cause, self.exempted)
        )
        return {"episodes": dict(self.totals), "left_out": left_out, "exempt": exempted}

    def counts(self) -> dict[str, int]:
        """Returns the number of episodes by cause, of all modes and with the exempt ones."""
        return {cause: counts.total() for cause, counts in sorted(self._all().items())}

    def __str__(self) -> str:
        return ", ".join(
            f"{cause}: {counts.total()} ({format_modes(counts)})"
            for cause, counts in sorted(self._all().items())
        )

    def _all(self) -> dict[str, Counter[str]]:
        causes = {cause: Counter(counts) for cause, counts in self.by_cause.items()}
        for cause, counts in self.exempted.items():
            causes.setdefault(cause, Counter()).update(counts)
        return {cause: counts for cause, counts in causes.items() if counts.total()}

    def _left_out(self, mode: str) -> int:
        return sum(counts[mode] for counts in self.by_cause.values())

    def _shares(self) -> dict[str, float]:
        return {mode: self._left_out(mode) / max(self.totals[mode], 1) for mode in MODES}

    def _comparison(self, mode: str, other: str) -> str:
        causes = ", ".join(
            f"{cause}: {counts[mode]}" for cause, counts in sorted(self.by_cause.items()) if counts[mode]
        )
        return (
            f"{self._left_out(mode)} of {self.totals[mode]} {mode} episodes are left out ({causes}), but "
            f"{self._left_out(other)} of {self.totals[other]} {other} ones"
        )

    def _remedy(self, mode: str, remedies: Mapping[str, str]) -> str:
        cause = max(self.by_cause, key=lambda each: self.by_cause[each][mode])
        return remedies.get(
            cause, "`ascl-train check GROUPS --model MODEL --episode ID` explains a single one"
        )


def format_modes(counts: Mapping[str, int]) -> str:
    """Returns counts by mode as text, such as `3 consult, 0 direct`."""
    undecided = [UNDECIDED] * bool(counts.get(UNDECIDED))
    return ", ".join(f"{counts.get(mode, 0)} {mode}" for mode in (*MODES, *undecided))
