"""Judges the episodes of a log concurrently; replies are cached, so an interrupted run resumes."""

from __future__ import annotations

import asyncio
import os
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
from evaluation.scorers.judges.options import API_KEY_VARIABLE, JudgeOptions
from evaluation.scorers.text import answer_of, models_that_open_in_reasoning, request_text

if TYPE_CHECKING:
    from agent.endpoint import Endpoint

MAX_TEXT_CHARS = 24_000  # of the prompt, and of the answer, that a judge reads
_MAX_FAILED_ROUNDS = 2  # rounds in which every worker fails, after which a judge that worked is given up

OnProgress = Callable[[int, int], None]
"""Receives the number of judged episodes and their total."""


def judge_with_options(
    options: JudgeOptions, episodes: Sequence[Episode], out: Path, on_progress: OnProgress
) -> list[Judgement]:
    """Connects to the judge's endpoint and judges the episodes of a log, in log order.

    The key is read from the environment variable ASCL_JUDGE_API_KEY.

    Args:
        options: the judge; see `JudgeOptions.check`.
        episodes: episodes of one log.
        out: file of the judgements; determines the location of the cache unless the options name it.
        on_progress: see `OnProgress`.

    Raises:
        JudgeError: the judge or its instructions cannot be used.
        EndpointError, LogError: as for `judge_log`.
    """
    from agent.endpoint import Endpoint

    adapter = options.adapter()

    async def run() -> list[Judgement]:
        key = os.environ.get(API_KEY_VARIABLE)
        async with Endpoint(options.base_url, options.model, api_key=key) as endpoint:
            return await judge_log(
                adapter,
                endpoint,
                episodes,
                options.cache_path(out),
                kinds=options.kind,
                concurrency=options.concurrency,
                on_progress=on_progress,
            )

    return asyncio.run(run())


async def judge_log(
    judge: Judge,
    endpoint: Endpoint,
    episodes: Sequence[Episode],
    cache: Path,
    *,
    kinds: Collection[str],
    concurrency: int = 8,
    on_progress: OnProgress = lambda count, total: None,
) -> list[Judgement]:
    """Judges the episodes of some kinds of prompts, in log order; skips episodes that ended in an error.

    Args:
        judge: writes the request and parses the reply.
        endpoint: an open endpoint.
        episodes: episodes of one log.
        cache: file of earlier replies. Malformed replies are not cached, so they are requested again.
        kinds: kinds of prompts to judge.
        concurrency: maximum number of concurrent requests.
        on_progress: see `OnProgress`.

    Raises:
        EndpointError: the judge never answers, or stops answering; earlier replies are in the cache.
        LogError: the cache cannot be used.
    """
    thinking_models = models_that_open_in_reasoning(episodes)
    selected = [e for e in episodes if e.kind in kinds and e.stop_reason != "error"]
    judgements: dict[str, Judgement] = {}
    queue = deque(selected)
    failures, has_answered = 0, False

    with ReplyCache(cache) as replies:

        async def work() -> None:
            nonlocal failures, has_answered
            while queue:
                episode = queue.popleft()
                try:
                    judgement = await _judge_one(judge, endpoint, episode, replies, thinking_models)
                    failures, has_answered = 0, has_answered or judgement.content_digest is not None
                except EndpointError as error:
                    failures += 1
                    if (error.setup and not has_answered) or failures >= _MAX_FAILED_ROUNDS * concurrency:
                        raise
                    judgement = _unjudged(judge, endpoint, episode, f"endpoint: {error.type}")
                judgements[episode.id] = judgement
                on_progress(len(judgements), len(selected))

        try:
            async with asyncio.TaskGroup() as workers:
                for _ in range(min(concurrency, len(queue))):
                    workers.create_task(work())
        except BaseExceptionGroup as group:
            own = group.subgroup(AgentError)
            if own is None:
                raise
            raise own.exceptions[0] from None
    return [judgements[episode.id] for episode in selected]


async def _judge_one(
    judge: Judge,
    endpoint: Endpoint,
    episode: Episode,
    replies: ReplyCache,
    thinking_models: Collection[str],
) -> Judgement:
    answer = answer_of(episode, thinking_models)
    if not answer:
        return _unjudged(judge, endpoint, episode, "no answer")
    request = request_text(episode)
    # The end of a conversation is what was answered; a single prompt states its request at the beginning.
    shown = request[:MAX_TEXT_CHARS] if request == episode.prompt else request[-MAX_TEXT_CHARS:]
    messages: list[Message] = judge.messages(shown, answer[:MAX_TEXT_CHARS])
    digest = digest_of([judge.kind, judge.version, endpoint.model, messages, dict(judge.sampling)])
    cached = replies.get(digest)
    reply = cached if cached is not None else await _request(judge, endpoint, messages)
    shared = {
        "episode_id": episode.id,
        "judge": f"{judge.kind}-{judge.version}",
        "model": endpoint.model,
        "truncated": len(answer) > MAX_TEXT_CHARS or len(request) > MAX_TEXT_CHARS,
        "content_digest": digest,
    }
    try:
        reading = judge.read(reply)
    except MalformedError as error:
        return Judgement.model_validate({**shared, "unjudged": f"malformed: {error}"})
    if cached is None:
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


async def _request(judge: Judge, endpoint: Endpoint, messages: list[Message]) -> str:
    message = (await endpoint.complete(messages, [], judge.sampling)).message
    content = message.get("content")
    return content if isinstance(content, str) else ""


def _unjudged(judge: Judge, endpoint: Endpoint, episode: Episode, reason: str) -> Judgement:
    return Judgement(
        episode_id=episode.id, judge=f"{judge.kind}-{judge.version}", model=endpoint.model, unjudged=reason
    )
