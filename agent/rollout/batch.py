"""Samples many prompts into one log, several samples each. An interrupted run resumes where it stopped."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from agent.endpoint import check_sampling
from agent.episode import (
    NEWER_VERSION_REASON,
    Episode,
    EpisodeLog,
    Journal,
    Mode,
    Sample,
    SkippedLine,
    StopReason,
    changed_settings,
    iter_log,
    settings_mismatch_message,
)
from agent.errors import AgentError, EndpointError, LogError, RulesError
from agent.rollout.agent import Agent
from agent.rollout.forced_modes import ModeShare
from agent.rollout.prompt_file import Prompt

_MAX_FAILED_ROUNDS = 2
"""Rounds in which every worker fails, after which an endpoint that had answered is considered dead."""

ProgressListener = Callable[[int, int, Episode | None], None]
"""Receives the number of finished samples, the total, and the episode logged last."""


@dataclass
class RunSummary:
    """The result of a run."""

    episodes: int = 0
    """Episodes that the log now contains for these prompts, including those of earlier runs."""
    asked: int = 0
    """Episodes of this run."""
    modes: dict[str, int] = field(default_factory=dict)
    """Count by mode, without errors."""
    stop_reasons: dict[str, int] = field(default_factory=dict)
    """Count by stop reason. Rerunning the same command retries episodes that ended in `error`."""
    without_rules: dict[str, int] = field(default_factory=dict)
    """Count of the answers given although the rules could not be consulted, by cause."""
    skipped_lines: int = 0
    """Number of lines of the log that are not episodes."""
    seconds: float = 0.0
    """Wall-clock time of this run."""

    def as_dict(self) -> dict[str, Any]:
        """Returns the summary for JSON output."""
        return asdict(self)


async def run_prompts(
    agent: Agent,
    prompts: list[Prompt],
    log_path: Path,
    *,
    samples: int = 1,
    concurrency: int = 8,
    seed: int | None = None,
    shares: ModeShare | None = None,
    new_server: bool = False,
    on_progress: ProgressListener = lambda finished, total, episode: None,
) -> RunSummary:
    """Samples every prompt `samples` times, with at most `concurrency` episodes at a time.

    Skips samples that the log already contains, unless they ended in an error, and the recorded turns of an
    interrupted episode.

    Args:
        agent: answers the prompts.
        prompts: prompts with unique ids.
        log_path: the log to append to; `<log_path>.journal` is created beside it.
        samples: number of samples for each prompt.
        concurrency: maximum number of concurrent episodes.
        shares: share of each group whose mode is forced; None leaves every decision to the model.
        seed: sample k is sent seed + k; None sends no seed.
        new_server: the endpoint's server was just started, and has answered nothing yet.
        on_progress: called at the start and after each logged episode.

    Raises:
        LogError: if the log was started with other settings or other prompts.
        RulesError: if the rule service cannot be reached at the start, or its rulebook changes meanwhile.
        EndpointError: if the endpoint never answers, stops answering, or samples otherwise than requested.
    """
    start = time.monotonic()
    settings = await agent.context.log_settings()
    # The number of samples determines which of them have a forced mode.
    mode_share = {**shares.as_dict(), "samples": samples} if shares else None
    settings = {**settings, "seed": seed, "mode_share": mode_share}
    finished, skipped_lines = _finished_samples(log_path, settings, prompts)
    all_samples = [(prompt, index) for prompt in prompts for index in range(samples)]
    batch = _Batch(
        agent=agent,
        samples=samples,
        seed=seed,
        shares=shares,
        on_progress=on_progress,
        failures=_FailureMonitor(_MAX_FAILED_ROUNDS * concurrency, settings["rulebook_digest"]),
        total=len(all_samples),
        queue=deque((prompt, index) for prompt, index in all_samples if (prompt.id, index) not in finished),
        outcomes={(p.id, i): finished[p.id, i] for p, i in all_samples if (p.id, i) in finished},
    )
    asked = len(batch.queue)
    if asked:
        await _confirm_sampling(agent, new_server)
    on_progress(len(batch.outcomes), batch.total, None)
    with Journal(log_path, settings, finished.keys()) as journal, EpisodeLog(log_path) as log:
        await batch.run(journal, log, concurrency)
    return batch.summary(asked, skipped_lines, time.monotonic() - start)


async def _confirm_sampling(agent: Agent, new_server: bool) -> None:
    """Checks the sampling in force, which all episodes of the run then record."""
    context = agent.context
    effective = await check_sampling(context.endpoint, context.sampling, new_server=new_server)
    if effective is not None:
        agent.context = replace(context, sampling_effective=effective)


async def check_log_settings(log: Path, agent: Agent) -> None:
    """Checks that a log was started with this agent's settings, before anything is appended to it.

    Raises:
        LogError: with the settings that differ.
        RulesError: if the rule service cannot be queried.
    """
    first = next(iter_log(log), None) if log.is_file() else None
    if first is None:
        return
    settings = _episode_level(await agent.context.log_settings())
    if changed := changed_settings(_settings_of(first), settings):
        raise LogError(settings_mismatch_message(log, changed))


@dataclass(frozen=True)
class _Outcome:
    """The fields of an episode that stay in memory; the log contains the rest."""

    mode: Mode
    stop_reason: StopReason
    without_rules: str | None

    @classmethod
    def of(cls, episode: Episode) -> _Outcome:
        return cls(episode.mode, episode.stop_reason, episode.answered_without_rules)


@dataclass
class _FailureMonitor:
    """Stops a run that cannot succeed."""

    max_failures: int
    """Consecutive failures after which an endpoint that had answered is considered dead."""
    digest: str | None
    """Digest of the rulebook at the start."""
    _answered: bool = False
    _failures: int = 0

    def check(self, episode: Episode) -> None:
        """Raises if the run must stop because of this episode, which must then not be logged."""
        for consultation in episode.consultations:
            if consultation.digest not in (None, self.digest):
                raise RulesError(
                    f"the rulebook changed during the run (digest {str(self.digest)[:12]}, now "
                    f"{str(consultation.digest)[:12]}): start again with another --log",
                    type="rulebook_changed",
                )
        self._answered |= bool(episode.turns)
        if episode.error is None or not episode.error.setup:
            self._failures = 0
            return
        self._failures += 1
        if not self._answered or self._failures >= self.max_failures:
            error_class = RulesError if episode.error.boundary == "rules" else EndpointError
            raise error_class(episode.error.message, type=episode.error.type, setup=True)


@dataclass
class _Batch:
    """The remaining samples of a run and the workers that process them."""

    agent: Agent
    samples: int
    seed: int | None
    shares: ModeShare | None
    on_progress: ProgressListener
    failures: _FailureMonitor
    total: int
    queue: deque[tuple[Prompt, int]]
    outcomes: dict[Sample, _Outcome]

    async def run(self, journal: Journal, log: EpisodeLog, concurrency: int) -> None:
        """Processes the queue with `concurrency` workers; raises the first `AgentError` of a worker."""
        try:
            async with asyncio.TaskGroup() as workers:
                for _ in range(min(concurrency, len(self.queue))):
                    workers.create_task(self._work(journal, log))
        except BaseExceptionGroup as group:
            errors = group.subgroup(AgentError)
            if errors is None:
                raise
            raise errors.exceptions[0] from None

    def summary(self, asked: int, skipped_lines: int, seconds: float) -> RunSummary:
        """Returns the result of the run."""
        outcomes = self.outcomes.values()
        return RunSummary(
            episodes=len(outcomes),
            asked=asked,
            modes=dict(Counter(each.mode for each in outcomes if each.stop_reason != "error")),
            stop_reasons=dict(Counter(each.stop_reason for each in outcomes)),
            without_rules=dict(Counter(each.without_rules for each in outcomes if each.without_rules)),
            skipped_lines=skipped_lines,
            seconds=seconds,
        )

    async def _work(self, journal: Journal, log: EpisodeLog) -> None:
        while self.queue:
            prompt, index = self.queue.popleft()
            episode = await self.agent.run(
                prompt.prompt,
                prompt_id=prompt.id,
                kind=prompt.kind,
                sample_index=index,
                sampling=None if self.seed is None else {"seed": self.seed + index},
                recorded=journal.sample(prompt.id, index),
                force=self.shares.mode_of(index, self.samples) if self.shares else None,
            )
            self.failures.check(episode)
            log.append(episode)
            self.outcomes[prompt.id, index] = _Outcome.of(episode)
            self.on_progress(len(self.outcomes), self.total, episode)


def _episode_level(settings: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings that every episode records."""
    run_level = ("seed", "mode_share", "call_token", "direct_draws")
    return {name: value for name, value in settings.items() if name not in run_level}


def _settings_of(episode: Episode) -> dict[str, Any]:
    """Returns the settings of a logged episode, without the seed."""
    return {
        "model": episode.model_requested,
        "policy_version": episode.policy_version,
        "rulebook_digest": episode.rulebook_digest,
        "tool_schema_digest": episode.tool_schema_digest,
        "prompt_digest": episode.prompt_digest,
        "sampling": {name: value for name, value in episode.sampling_sent.items() if name != "seed"},
        "tool_mode": episode.tool_mode,
        **({} if episode.api == "chat" else {"api": episode.api}),
        "on_rules_error": episode.on_rules_error,
        "limits": episode.limits.model_dump(),
    }


def _finished_samples(
    log: Path, settings: dict[str, Any], prompts: list[Prompt]
) -> tuple[dict[Sample, _Outcome], int]:
    """Returns the samples that the log already contains, and the number of lines without an episode.

    Raises:
        LogError: if the log has other settings or prompts, or a line of a later version.
    """
    texts = {prompt.id: prompt.prompt for prompt in prompts}
    expected = _episode_level(settings)
    skipped: list[SkippedLine] = []
    finished: dict[Sample, _Outcome] = {}
    for episode in iter_log(log, skipped.append) if log.exists() else ():
        if changed := changed_settings(_settings_of(episode), expected):
            raise LogError(settings_mismatch_message(log, changed))
        if texts.get(episode.prompt_id, episode.prompt) != episode.prompt:
            raise LogError(
                f"{log} has a different text for the prompt {episode.prompt_id!r}: use another --log, or the "
                "original prompts"
            )
        if episode.stop_reason != "error":
            finished[episode.prompt_id, episode.sample_index] = _Outcome.of(episode)
    if newer := next((line for line in skipped if NEWER_VERSION_REASON in line.reason), None):
        raise LogError(f"{log} cannot be continued: line {newer.line} was {newer.reason}")
    return finished, len(skipped)
