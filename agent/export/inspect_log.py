"""Exports an episode log as an Inspect log: a sample for each episode, with rewards as scores.

Each sample's `metadata` contains the IDs, modes and digests of the episode. The export needs `inspect_ai`;
`write_inspect` names the extra that installs it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from agent.episode import Episode, text_digest
from agent.errors import ExportError

if TYPE_CHECKING:
    from inspect_ai.event import Event
    from inspect_ai.log import EvalLog, EvalSample, EvalSampleLimit
    from inspect_ai.model import ChatMessage
    from inspect_ai.scorer import Score

TASK = "ascl"
SUFFIXES = (".eval", ".json")


def write_inspect(episodes: Iterable[Episode], rewards: Mapping[str, Mapping[str, Any]], path: Path) -> int:
    """Writes an Inspect log and returns the number of its samples.

    Args:
        episodes: the episodes of a log, in order.
        rewards: lines of `ascl-eval score` by episode id; may be empty.
        path: the file to write; its suffix, one of `SUFFIXES`, selects the format.

    Raises:
        ExportError: if there are no episodes, or `inspect_ai` is not installed.
    """
    try:
        from inspect_ai.log import write_eval_log
    except ImportError as error:
        raise ExportError("the export to Inspect needs `inspect-ai`: pip install 'ascl[eval]'") from error
    log = inspect_log(episodes, rewards)
    write_eval_log(log, path)
    return len(log.samples or [])


def inspect_log(episodes: Iterable[Episode], rewards: Mapping[str, Mapping[str, Any]]) -> EvalLog:
    """Converts episodes to Inspect's log type.

    Of an episode that ended in an error and was run again, only the later one is included.

    Raises:
        ExportError: if there are no episodes.
    """
    from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalResults, EvalSpec, EvalStats

    numbered = _numbered(episodes)
    if not numbered:
        raise ExportError("the log contains no episode")
    first = next(iter(numbered.values()))
    prompts = list(dict.fromkeys(prompt_id for prompt_id, _ in numbered))
    samples = [
        inspect_sample(episode, epoch, rewards.get(episode.id))
        for (_, epoch), episode in sorted(numbered.items(), key=lambda item: item[0][1])
    ]
    last = max(sample.completed_at or first.started_at for sample in samples)
    key = text_digest(" ".join(sorted(episode.id for episode in numbered.values())))[:22]
    usage = {first.model_requested: total} if (total := _total_usage(samples)) else {}
    return EvalLog(
        status="success",
        eval=EvalSpec(
            eval_id=key,
            run_id=key,
            created=first.started_at,
            task=TASK,
            task_id=key,
            dataset=EvalDataset(samples=len(prompts), sample_ids=list(prompts)),
            model=first.model_requested,
            model_base_url=first.endpoint,
            config=EvalConfig(epochs=max(epoch for _, epoch in numbered)),
            packages={"inspect_ai": version("inspect_ai")},
            metadata=_run_settings(first),
        ),
        results=EvalResults(
            total_samples=len(samples),
            completed_samples=sum(sample.error is None for sample in samples),
            scores=_means(samples),
        ),
        stats=EvalStats(started_at=first.started_at, completed_at=last, model_usage=usage),
        samples=samples,
    )


def inspect_sample(episode: Episode, epoch: int, reward: Mapping[str, Any] | None) -> EvalSample:
    """Converts one episode to a sample; `epoch` counts the samples of a prompt from 1."""
    from inspect_ai.log import EvalError, EvalSample
    from inspect_ai.model import ModelOutput

    from agent.episode import reply_positions
    from agent.export.inspect_messages import chat_messages, model_output, model_usage

    messages = chat_messages(episode)
    positions = reply_positions(episode)
    usage = model_usage(episode.turns)
    failed = episode.error.message if episode.error is not None and episode.stop_reason == "error" else None
    output = model_output(episode, episode.turns[-1], messages[positions[-1]]) if positions else ModelOutput()
    return EvalSample(
        id=episode.prompt_id,
        epoch=epoch,
        uuid=episode.id,
        input=episode.prompt,
        target="",
        messages=messages,
        output=output,
        scores=reward_scores(reward) if reward is not None else None,
        metadata=sample_metadata(episode),
        events=_events(episode, messages, positions),
        model_usage={episode.model_requested: usage} if usage else {},
        started_at=episode.started_at,
        completed_at=_add_seconds(episode.started_at, episode.seconds),
        total_time=episode.seconds,
        turn_count=len(episode.turns),
        error=EvalError(message=failed, traceback="", traceback_ansi="") if failed is not None else None,
        limit=_limit(episode),
    )


def sample_metadata(episode: Episode) -> dict[str, Any]:
    """Returns a sample's metadata: ids, mode, stop reason, and consultations with rules and digest."""
    return {
        "episode_id": episode.id,
        "group_id": episode.group_id,
        "prompt_id": episode.prompt_id,
        "sample_index": episode.sample_index,
        **({"conversation": episode.conversation.model_dump()} if episode.conversation else {}),
        "kind": episode.kind,
        "mode": episode.mode,
        "mode_forced": episode.mode_forced,
        "stop_reason": episode.stop_reason,
        **_run_settings(episode),
        "consultations": [
            {
                "situation": consultation.situation,
                "verdict": consultation.verdict,
                "rules": [rule.id for rule in consultation.rules],
                "digest": consultation.digest,
                "error": consultation.error,
            }
            for consultation in episode.consultations
        ],
    }


def reward_scores(reward: Mapping[str, Any]) -> dict[str, Score]:
    """Converts a reward to Inspect scores: `reward`, its components, and the refusal label `answered`.

    A missing reward becomes an unscored value with the reason, not zero.
    """
    from inspect_ai.scorer import Score

    excluded = reward.get("excluded")
    numbers = {"reward": reward.get("total"), **(reward.get("scores") or {})}
    scores = {
        name: Score.unscored(explanation=excluded) if value is None else Score(value=value)
        for name, value in numbers.items()
    }
    if reward.get("label") is not None:
        scores["answered"] = Score(value=str(reward["label"]))
    return scores


def _numbered(episodes: Iterable[Episode]) -> dict[tuple[str, int], Episode]:
    """Returns the episodes by prompt and epoch, from 1; Inspect allows one sample for each pair."""
    numbered: dict[tuple[str, int], Episode] = {}
    for episode in episodes:
        epoch = episode.sample_index + 1
        # A gateway logs a repeated prompt as sample 0 each time: use the next free number.
        while (
            previous := numbered.get((episode.prompt_id, epoch))
        ) is not None and previous.stop_reason != "error":
            epoch += 1
        numbered[episode.prompt_id, epoch] = episode
    return numbered


def _run_settings(episode: Episode) -> dict[str, Any]:
    """Returns the settings that the episodes of one run have in common."""
    return {
        "policy_version": episode.policy_version,
        "endpoint": episode.endpoint,
        "rulebook_digest": episode.rulebook_digest,
        "tool_schema_digest": episode.tool_schema_digest,
        "prompt_digest": episode.prompt_digest,
        "tool_mode": episode.tool_mode,
        "sampling": episode.sampling_sent,
        "on_rules_error": episode.on_rules_error,
    }


def _means(samples: list[EvalSample]) -> list[Any]:
    """Returns the mean of every numeric score over the samples that have it."""
    from inspect_ai.log import EvalMetric, EvalScore

    values: dict[str, list[float]] = {}
    for sample in samples:
        for name, score in (sample.scores or {}).items():
            if isinstance(score.value, int | float):
                values.setdefault(name, []).append(float(score.value))
    means = []
    for name, numbers in values.items():
        scored = [value for value in numbers if value == value]  # drops NaN, which means unscored in Inspect
        means.append(
            EvalScore(
                name=name,
                scorer=name,
                scored_samples=len(scored),
                unscored_samples=len(samples) - len(scored),
                metrics={"mean": EvalMetric(name="mean", value=fmean(scored))} if scored else {},
            )
        )
    return means


def _events(episode: Episode, messages: list[ChatMessage], positions: list[int]) -> list[Event]:
    """Returns the turns and consultations in chronological order, for the viewer's transcript."""
    from inspect_ai.event import ModelEvent, ToolEvent
    from inspect_ai.model import GenerateConfig

    from agent.export.inspect_messages import model_output, tool_error, tool_infos

    events: list[Event] = []
    start = datetime.fromisoformat(episode.started_at)
    tools = tool_infos(episode)
    settings = {
        name: value for name, value in episode.sampling_sent.items() if name in GenerateConfig.model_fields
    }
    config = GenerateConfig.model_validate(settings)
    name = str(tools[-1].name) if tools else ""
    for turn, at in zip(episode.turns, positions, strict=False):
        ended = datetime.fromisoformat(turn.started_at) + timedelta(seconds=turn.seconds)
        events.append(
            ModelEvent(
                uuid=f"{episode.id}-turn-{turn.index}",
                timestamp=datetime.fromisoformat(turn.started_at),
                working_start=max((datetime.fromisoformat(turn.started_at) - start).total_seconds(), 0.0),
                model=episode.model_requested,
                input=messages[:at],
                tools=tools,
                tool_choice="auto",
                config=config,
                output=model_output(episode, turn, messages[at]),
                retries=turn.attempts - 1,
                completed=ended,
                working_time=turn.seconds,
            )
        )
        for number, consultation in enumerate(c for c in episode.consultations if c.turn == turn.index):
            finished = ended + timedelta(seconds=consultation.seconds)
            situation = consultation.situation
            events.append(
                ToolEvent(
                    uuid=f"{episode.id}-turn-{turn.index}-{number}",
                    timestamp=ended,
                    working_start=max((ended - start).total_seconds(), 0.0),
                    id=consultation.call_id,
                    function=name,
                    arguments={"situation": situation} if situation is not None else {},
                    result=consultation.text or "",
                    error=tool_error(consultation),
                    completed=finished,
                    working_time=consultation.seconds,
                )
            )
            ended = finished
    return events


def _limit(episode: Episode) -> EvalSampleLimit | None:
    """Returns the limit that ended the episode; the log does not distinguish the limits other than turns."""
    from inspect_ai.log import EvalSampleLimit

    if episode.stop_reason != "limit":
        return None
    if len(episode.turns) >= episode.limits.turns:
        return EvalSampleLimit(type="turn", limit=episode.limits.turns)
    return EvalSampleLimit(
        type="custom", limit=len(episode.turns), reason="tokens, seconds or repeated calls"
    )


def _total_usage(samples: list[EvalSample]) -> Any:
    total = None
    for sample in samples:
        for usage in sample.model_usage.values():
            total = usage if total is None else total + usage
    return total


def _add_seconds(start: str, seconds: float) -> str:
    return (datetime.fromisoformat(start) + timedelta(seconds=seconds)).isoformat()
