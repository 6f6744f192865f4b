"""Episodes of a log that cannot be used for groups, counted by cause and mode."""

from __future__ import annotations

import math
from collections.abc import Iterable

from trainer.groups.log_reader import LoggedEpisode, LoggedReward
from trainer.tokens.modes import UNDECIDED, ModeLosses

NOT_SCORED = "not scored"
SECOND_EPISODE = "a second episode of that id"
MIXED_GROUP = "its group mixes checkpoints, rulebooks or settings"
ALONE = "alone in its group"
INVALID_LINE = "line that is not an episode"
_ERROR = "ended in an error"
_FORCED = "its mode was forced"
_NO_REPLY = "ended before its first reply"
_REMEDIES = {
    NOT_SCORED: "score the whole log with `ascl-eval score`",
    _ERROR: "repeat the same `ascl-agent run`, which samples these episodes again",
    "a reward that is not finite": "correct the rewards file",
    MIXED_GROUP: "prepare one log for each checkpoint, rulebook and sampling setting",
    "no reward (no reference answer)": "pass prompts with answers to `ascl-eval score --prompts`",
    "no reward (reference answer of unknown form)": "correct the `answer` of these prompts",
    "no reward (unjudged": "repeat `ascl-eval judge run`, which asks again about these episodes, and score",
    "no reward (error": "sample these episodes again when the rule service answers",
    "no reward (": "judge them (`ascl-eval judge run`), or score them with `ascl-eval score --labels`",
}


def exclusion_remedies(causes: Iterable[str]) -> dict[str, str]:
    """Returns a remedy for each cause that has one."""
    return {
        cause: remedy
        for cause in causes
        for remedy in [next((text for start, text in _REMEDIES.items() if cause.startswith(start)), None)]
        if remedy is not None
    }


class EpisodeFilter:
    """Decides which episodes can be used, and counts the others.

    Args:
        keep_forced: whether an episode with a forced mode can be used.
    """

    def __init__(self, keep_forced: bool) -> None:
        self.losses = ModeLosses()
        self._keep_forced = keep_forced
        self._failed: dict[tuple[str, str, int], str] = {}
        """Mode of the latest attempt of a sample that ended in an error."""

    def cause(self, episode: LoggedEpisode, reward: LoggedReward | None) -> str | None:
        """Returns the reason why an episode is left out, and counts it; returns None if it can be used."""
        if self._failed and (mode := self._failed.pop(_sample(episode), None)):
            self.losses.exempt(_ERROR, mode)  # this attempt replaces it
        if episode.stop_reason == "error":
            return self._count_error(episode)
        if episode.mode_forced and not self._keep_forced:
            self.losses.exempt(_FORCED, _decided_mode(episode))
            return _FORCED
        if episode.stop_reason == "limit" and not episode.turns:
            self.losses.exempt(_NO_REPLY, _decided_mode(episode))
            return _NO_REPLY
        self.losses.totals[episode.mode] += 1
        cause = _without_reward(reward)
        if cause is not None:
            self.losses.leave_out(cause, episode.mode)
        return cause

    def _count_error(self, episode: LoggedEpisode) -> str:
        mode = _decided_mode(episode)
        if episode.mode_forced or mode == UNDECIDED:
            self.losses.exempt(_ERROR, mode)
        else:
            self._failed[_sample(episode)] = mode
        return _ERROR

    def finish(self) -> ModeLosses:
        """Counts the errors that no later attempt replaced. Returns all counts."""
        for mode in self._failed.values():
            self.losses.totals[mode] += 1
            self.losses.leave_out(_ERROR, mode)
        self._failed.clear()
        return self.losses


def _sample(episode: LoggedEpisode) -> tuple[str, str, int]:
    return episode.policy_version, episode.prompt_id, episode.sample_index


def _decided_mode(episode: LoggedEpisode) -> str:
    return episode.mode if episode.turns or episode.mode == "consult" else UNDECIDED


def _without_reward(reward: LoggedReward | None) -> str | None:
    if reward is None:
        return NOT_SCORED
    if reward.total is None:
        return f"no reward ({reward.excluded or 'null'})"
    return None if math.isfinite(reward.total) else "a reward that is not finite"
