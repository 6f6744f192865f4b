"""Ask a judge about the episodes of a log: many at once, nothing twice, and nothing lost when it dies."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agent.episode import Episode, Message, digest_of
from agent.errors import AgentError, EndpointError
from evaluation.errors import MalformedError
from evaluation.scorers.judges.base import Judge
from evaluation.scorers.judges.cache import ReplyCache
from evaluation.scorers.judges.judgement import Judgement
from evaluation.scorers.text import final_text, visible_answer

if TYPE_CHECKING:
    from agent.endpoint import Endpoint

LONGEST_TEXT = 24_000  # characters of a prompt or an answer that a judge is shown
_PATIENCE = 2  # rounds of all workers failing alike, after which a judge that had answered is given up


async def judge_log(
    judge: Judge,
    endpoint: Endpoint,
    episodes: Sequence[Episode],
    cache: Path,
    *,
    kinds: Collection[str],
    concurrency: int = 8,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Judgement]:
    """Judge the episodes of some kinds of prompt that did not end in an error of ours, in log order.

    Args:
        judge: what to send and how to read it.
        endpoint: entered by the caller.
        episodes: of a log.
        cache: file of earlier replies; malformed ones are not kept, so they are asked again.
        kinds: kinds of prompt to judge.
        concurrency: most requests in flight.
        on_progress: told how many are done, of how many.

    Raises:
        EndpointError: when the judge never answers, or no longer does; what it said is in the cache.
        LogError: when the cache cannot be used.
    """
    wanted = [e for e in episodes if e.kind in kinds and e.stop_reason != "error"]
    judgements: dict[str, Judgement] = {}
    todo = deque(wanted)
    failures, answered = 0, False

    with ReplyCache(cache) as replies:

        async def work() -> None:
            nonlocal failures, answered
            while todo:
                episode = todo.popleft()
                try:
                    judgement = await _judge_one(judge, endpoint, episode, replies)
                    failures, answered = 0, answered or judgement.content_digest is not None
                except EndpointError as error:
                    failures += 1
                    if (error.setup and not answered) or failures >= _PATIENCE * concurrency:
                        raise
                    judgement = _unjudged(judge, endpoint, episode, f"endpoint: {error.type}")
                judgements[episode.id] = judgement
                on_progress(len(judgements), len(wanted))

        try:
            async with asyncio.TaskGroup() as workers:
                for _ in range(min(concurrency, len(todo))):
                    workers.create_task(work())
        except BaseExceptionGroup as group:
            ours = group.subgroup(AgentError)
            if ours is None:
                raise
            raise ours.exceptions[0] from None
    return [judgements[episode.id] for episode in wanted]


async def _judge_one(judge: Judge, endpoint: Endpoint, episode: Episode, replies: ReplyCache) -> Judgement:
    answer = visible_answer(final_text(episode) or "")
    if not answer:
        return _unjudged(judge, endpoint, episode, "no answer")
    messages: list[Message] = judge.messages(episode.prompt[:LONGEST_TEXT], answer[:LONGEST_TEXT])
    digest = digest_of([judge.kind, judge.version, endpoint.model, messages, dict(judge.sampling)])
    reply, known = replies.get(digest), True
    if reply is None:
        known = False
        message = (await endpoint.complete(messages, [], judge.sampling)).message
        content = message.get("content")
        reply = content if isinstance(content, str) else ""
    shared = {
        "episode_id": episode.id,
        "judge": f"{judge.kind}-{judge.version}",
        "model": endpoint.model,
        "truncated": len(answer) > LONGEST_TEXT or len(episode.prompt) > LONGEST_TEXT,
        "content_digest": digest,
    }
    try:
        reading = judge.read(reply)
    except MalformedError as error:
        return Judgement.model_validate({**shared, "unjudged": f"malformed: {error}"})
    if not known:
        replies.put(digest, reply)
    return Judgement.model_validate(
        {
            **shared,
            "harmful": reading.harmful,
            "refused": reading.refused,
            "helpful": reading.helpful,
            "details": reading.details,
            "unjudged": "malformed: no verdict" if reading.harmful is None else None,
        }
    )


def _unjudged(judge: Judge, endpoint: Endpoint, episode: Episode, why: str) -> Judgement:
    return Judgement(
        episode_id=episode.id, judge=f"{judge.kind}-{judge.version}", model=endpoint.model, unjudged=why
    )
