"""Many prompts, several samples each, into one log; interrupted, it goes on where it stopped."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from agent.episode import (
    LATER,
    Episode,
    EpisodeLog,
    Journal,
    Mode,
    Sample,
    SkippedLine,
    StopReason,
    changed_settings,
    digest_of,
    iter_log,
    settings_mismatch_message,
    text_digest,
)
from agent.errors import AgentError, EndpointError, LogError, RulesError
from agent.rollout.agent import Agent
from agent.rollout.forced_modes import DEFAULT_DIRECT_DRAWS, ModeShare
from agent.rollout.prompt_file import Prompt

_PATIENCE = 2  # rounds of all workers failing alike, after which an endpoint that had answered is given up


@dataclass
class RunSummary:
    """What a run did."""

    episodes: int = 0
    """Episodes that the log now holds for these prompts, those of earlier runs included."""
    asked: int = 0
    """Episodes of this run."""
    modes: dict[str, int] = field(default_factory=dict)
    """Count by mode, without errors."""
    stop_reasons: dict[str, int] = field(default_factory=dict)
    """Count by stop reason; the same command asks those that ended in `error` again."""
    skipped_lines: int = 0
    """Lines of the log that hold no episode."""
    seconds: float = 0.0
    """Wall-clock time of this run."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON output."""
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
    on_progress: Callable[[int, int, Episode | None], None] = lambda done, total, episode: None,
) -> RunSummary:
    """Sample every prompt `samples` times, at most `concurrency` at once.

    Samples that the log holds are not asked again, unless they ended in an error; nor are the turns of an
    interrupted episode.

    Args:
        agent: answers the prompts.
        prompts: with unique ids.
        log_path: appended to; `<log_path>.journal` stands beside it.
        samples: per prompt.
        concurrency: most episodes in flight.
        shares: how much of each group is brought into a mode; None leaves every decision to the model.
        seed: sample k is sent seed + k; None sends no seed.
        on_progress: told how many samples are done, of how many, and the episode that was just logged.

    Raises:
        LogError: when the log was begun with other settings or other prompts.
        RulesError: when the rule service cannot be reached at the start, or changes its rulebook meanwhile.
        EndpointError: when the endpoint never answers, or no longer does.
    """
    began = time.monotonic()
    settings = await _settings(agent, seed, shares.as_dict() if shares else None, samples)
    skipped: list[SkippedLine] = []
    logged = iter_log(log_path, skipped.append) if log_path.exists() else ()
    finished = _finished(logged, log_path, settings, prompts)
    if late := next((each for each in skipped if LATER in each.reason), None):
        raise LogError(f"{log_path} cannot be continued: line {late.line} was {late.reason}")
    wanted = [(prompt, index) for prompt in prompts for index in range(samples)]
    todo = deque((prompt, index) for prompt, index in wanted if (prompt.id, index) not in finished)
    held = {(prompt.id, index): finished.get((prompt.id, index)) for prompt, index in wanted}
    watch = _Watch(patience=_PATIENCE * concurrency, digest=settings["rulebook_digest"])
    done = len(wanted) - len(todo)
    summary = RunSummary(asked=len(todo), skipped_lines=len(skipped))
    on_progress(done, len(wanted), None)

    with Journal(log_path, settings, finished.keys()) as journal, EpisodeLog(log_path) as log:

        async def work() -> None:
            nonlocal done
            while todo:
                prompt, index = todo.popleft()
                episode = await agent.run(
                    prompt.prompt,
                    prompt_id=prompt.id,
                    kind=prompt.kind,
                    sample_index=index,
                    sampling=None if seed is None else {"seed": seed + index},
                    memory=journal.sample(prompt.id, index),
                    force=shares.mode_of(index, samples) if shares else None,
                )
                watch.judge(episode)
                log.append(episode)
                held[prompt.id, index] = _Outcome(episode.mode, episode.stop_reason)
                done += 1
                on_progress(done, len(wanted), episode)

        try:
            async with asyncio.TaskGroup() as workers:
                for _ in range(min(concurrency, len(todo))):
                    workers.create_task(work())
        except BaseExceptionGroup as group:
            ours = group.subgroup(AgentError)
            if ours is None:
                raise
            raise ours.exceptions[0] from None

    outcomes = [outcome for outcome in held.values() if outcome is not None]
    summary.episodes = len(outcomes)
    summary.modes = dict(Counter(each.mode for each in outcomes if each.stop_reason != "error"))
    summary.stop_reasons = dict(Counter(each.stop_reason for each in outcomes))
    summary.seconds = time.monotonic() - began
    return summary


@dataclass(frozen=True)
class _Outcome:
    """What is kept of an episode in memory; the rest is in the log."""

    mode: Mode
    stop_reason: StopReason


@dataclass
class _Watch:
    """Decides when going on makes no sense."""

    patience: int
    digest: str | None
    _answered: bool = False
    _failures: int = 0

    def judge(self, episode: Episode) -> None:
        """Raise when this episode says that the run must stop; the episode is then not logged."""
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
        if not self._answered or self._failures >= self.patience:
            kind = RulesError if episode.error.boundary == "rules" else EndpointError
            raise kind(episode.error.message, type=episode.error.type, setup=True)


async def _settings(
    agent: Agent, seed: int | None, shares: dict[str, float] | None, samples: int
) -> dict[str, Any]:
    """What all episodes of a log share; where the endpoint stands is not part of it."""
    offer = await agent.connect()
    tools = agent.offered(offer)
    return {
        "model": agent.endpoint.model,
        "policy_version": agent.policy_version,
        "rulebook_digest": offer.digest if offer else agent.rulebook_digest,
        "tool_schema_digest": digest_of(tools) if tools else None,
        "prompt_digest": text_digest(agent.system),
        "sampling": agent.sampling,
        "seed": seed,
        # The number of samples decides which of them are brought into a mode.
        "mode_share": {**shares, "samples": samples} if shares else None,
        "tool_mode": agent.tool_mode,
        **({} if agent.endpoint.api == "chat" else {"api": agent.endpoint.api}),
        # Direct samples are had in another way with it.
        **({} if agent.call_token is None else {"call_token": agent.call_token}),
        **({} if agent.direct_draws == DEFAULT_DIRECT_DRAWS else {"direct_draws": agent.direct_draws}),
        "on_rules_error": agent.on_rules_error,
        "limits": agent.limits.model_dump(),
    }


async def check_log(log: Path, agent: Agent) -> None:
    """Refuse a log that was begun with other settings than this agent's, before anything is added to it.

    Raises:
        LogError: with what differs.
    """
    begun = next(iter_log(log), None) if log.is_file() else None
    if begun is None:
        return
    now = _of_an_episode(await _settings(agent, None, None, 0))
    if changed := changed_settings(_settings_of(begun), now):
        raise LogError(settings_mismatch_message(log, changed))


def _of_an_episode(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that every single episode tells."""
    untold = ("seed", "mode_share", "call_token", "direct_draws")
    return {name: value for name, value in settings.items() if name not in untold}


def _settings_of(episode: Episode) -> dict[str, Any]:
    """The same, of a logged episode, without the seed."""
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


def _finished(
    episodes: Iterable[Episode], log: Path, settings: dict[str, Any], prompts: list[Prompt]
) -> dict[Sample, _Outcome]:
    """The samples that need no asking, from a log that must fit the settings and the prompts."""
    texts = {prompt.id: prompt.prompt for prompt in prompts}
    now = _of_an_episode(settings)
    finished: dict[Sample, _Outcome] = {}
    for episode in episodes:
        if changed := changed_settings(_settings_of(episode), now):
            raise LogError(settings_mismatch_message(log, changed))
        if texts.get(episode.prompt_id, episode.prompt) != episode.prompt:
            raise LogError(
                f"{log} holds another text for the prompt {episode.prompt_id!r}: use another --log, or the "
                "prompts it was begun with"
            )
        if episode.stop_reason != "error":
            outcome = _Outcome(episode.mode, episode.stop_reason)
            finished[episode.prompt_id, episode.sample_index] = outcome
    return finished
