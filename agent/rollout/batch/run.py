"""Samples many prompts into one log, several samples each. An interrupted run resumes where it stopped.

A script of user turns is played: each turn is an episode whose history contains the model's own answers.
"""

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
    Episode,
    EpisodeLog,
    History,
    Journal,
    Message,
    Sample,
)
from agent.errors import AgentError, EndpointError, RulesError
from agent.rollout.agent import Agent
from agent.rollout.batch.resume import Outcome, Script, place_of, read_logged
from agent.rollout.conversation import history_after
from agent.rollout.forced_modes import ModeShare
from agent.rollout.prompts import Prompt, PromptTurn

_MAX_FAILED_ROUNDS = 2
"""Failed rounds of all workers after which an endpoint that had answered is considered dead."""

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
    cut_calls: int = 0
    """Episodes in which the limit on the tokens of a reply cut off a call of the rule tool."""
    unasked: int = 0
    """Turns of conversations that were not run because an earlier turn ended in an error."""
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
    history: History = "full",
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
        history: `last` sends only the last user turn of a conversation, without the messages before it.
        new_server: the endpoint's server was just started, and has answered nothing yet.
        on_progress: called at the start and after each logged episode.

    Raises:
        LogError: if the log was started with other settings or other prompts.
        RulesError: if the rule service cannot be reached at the start, or its rulebook changes meanwhile.
        EndpointError: if the endpoint never answers, stops answering, or does not sample as requested.
    """
    start = time.monotonic()
    settings = await agent.context.log_settings()
    # The number of samples determines which of them have a forced mode.
    settings |= {"seed": seed, "mode_share": {**shares.as_dict(), "samples": samples} if shares else None}
    settings |= {} if history == "full" else {"history": history}
    logged = read_logged(log_path, settings, prompts, history)
    batch = _Batch(
        agent=agent,
        samples=samples,
        seed=seed,
        shares=shares,
        history=history,
        on_progress=on_progress,
        failures=_FailureMonitor(_MAX_FAILED_ROUNDS * concurrency, settings["rulebook_digest"]),
        total=samples * sum(len(prompt.turns) for prompt in prompts),
        queue=deque(logged.scripts(prompts, samples, history)),
        outcomes=logged.outcomes_of(prompts, samples),
    )
    if batch.queue:
        await _confirm_sampling(agent, new_server)
    on_progress(len(batch.outcomes), batch.total, None)
    with Journal(log_path, settings, logged.outcomes.keys()) as journal, EpisodeLog(log_path) as log:
        await batch.run(journal, log, concurrency)
    logged_before = len(logged.outcomes_of(prompts, samples))
    return batch.summary(logged_before, logged.skipped_lines, time.monotonic() - start)


async def _confirm_sampling(agent: Agent, new_server: bool) -> None:
    """Checks the sampling in force, which all episodes of the run then record."""
    context = agent.context
    effective = await check_sampling(context.endpoint, context.sampling, new_server=new_server)
    if effective is not None:
        agent.context = replace(context, sampling_effective=effective)


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
    history: History
    on_progress: ProgressListener
    failures: _FailureMonitor
    total: int
    queue: deque[Script]
    outcomes: dict[Sample, Outcome]

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

    def summary(self, logged_before: int, skipped_lines: int, seconds: float) -> RunSummary:
        """Returns the result of the run."""
        outcomes = self.outcomes.values()
        return RunSummary(
            episodes=len(outcomes),
            asked=len(outcomes) - logged_before,
            modes=dict(Counter(each.mode for each in outcomes if each.stop_reason != "error")),
            stop_reasons=dict(Counter(each.stop_reason for each in outcomes)),
            without_rules=dict(Counter(each.without_rules for each in outcomes if each.without_rules)),
            cut_calls=sum(each.cut_call for each in outcomes),
            unasked=self.total - len(outcomes),
            skipped_lines=skipped_lines,
            seconds=seconds,
        )

    async def _work(self, journal: Journal, log: EpisodeLog) -> None:
        while self.queue:
            script = self.queue.popleft()
            messages = script.history
            for turn in script.turns:
                episode = await self._answer(script, turn, messages, journal)
                self.failures.check(episode)
                log.append(episode)
                self.outcomes[turn.prompt_id, script.index] = Outcome.of(episode)
                self.on_progress(len(self.outcomes), self.total, episode)
                if episode.stop_reason == "error":
                    break
                messages = history_after(episode)

    async def _answer(
        self, script: Script, turn: PromptTurn, messages: list[Message], journal: Journal
    ) -> Episode:
        prompt, index = script.prompt, script.index
        return await self.agent.run(
            turn.text,
            prompt_id=turn.prompt_id,
            kind=prompt.kind,
            sample_index=index,
            sampling=None if self.seed is None else {"seed": self.seed + index},
            history=messages,
            recorded=journal.sample(turn.prompt_id, index),
            force=self.shares.mode_of(index, self.samples) if self.shares else None,
            conversation=place_of(prompt, turn, self.history),
        )
