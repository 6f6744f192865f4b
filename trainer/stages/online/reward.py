"""Rewards of fresh completions, computed by the scorer that `ascl-eval score` applies to logs."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.endpoint import reasoning_text
from agent.episode import Consultation, Episode, ErrorRecord, Message, Turn, has_reply
from agent.errors import EndpointError
from agent.tools import RULE_TOOL
from evaluation.scorers import Reward, Weights, models_that_open_in_reasoning, score_episode
from trainer.errors import TrainingError
from trainer.stages.monitoring import Notify
from trainer.stages.online.prompted_thoughts import PromptedThoughts
from trainer.stages.online.rule_tool import UNAVAILABLE
from trainer.stages.run_record import mask_secrets_in_text
from trainer.tokens import mode_of

if TYPE_CHECKING:
    from evaluation.scorers.judges.judgement import Judgement

_EPOCH = "1970-01-01T00:00:00Z"  # placeholder: scoring reads no times


@dataclass(frozen=True)
class JudgeEndpoint:
    """Endpoint of an LLM judge of harm."""

    kind: str
    base_url: str
    model: str
    concurrency: int = 16


@dataclass
class OnlineReward:
    """Reward function for TRL. An episode that could not be judged gets None, never zero.

    Args:
        weights: weights of the outcome and of format faults.
        end_token_ids: tokens that end a finished completion.
        judge: judges harmful prompts, with the key in ASCL_JUDGE_API_KEY; None counts refusals instead.
        notify: receives a line when the judge does not answer.
        prompted_thoughts: how the chat template opens thoughts in the prompt; None if it does not.
    """

    weights: Weights
    end_token_ids: frozenset[int]
    judge: JudgeEndpoint | None = None
    notify: Notify = lambda line: None
    prompted_thoughts: PromptedThoughts | None = None
    unjudged: int = 0
    """Number of episodes without a reward so far."""
    outcomes: list[float | None] = field(default_factory=list)
    """Outcomes of the latest completions; None where they could not be judged."""

    __name__ = "outcome"

    def __call__(
        self,
        prompts: Sequence[list[Message]],
        completions: Sequence[list[Message]],
        completion_ids: Sequence[Sequence[int]],
        *,
        kind: Sequence[str | None],
        prompt_id: Sequence[str],
        answer: Sequence[str | None],
        **_: Any,
    ) -> list[float | None]:
        """Returns one number or None per completion."""
        rows = zip(prompts, completions, completion_ids, kind, prompt_id, strict=True)
        episodes = [
            to_episode(
                str(index),
                prompt,
                self._separate_thoughts(completion, ids),
                bool(ids) and ids[-1] in self.end_token_ids,
                prompt_kind,
                name,
            )
            for index, (prompt, completion, ids, prompt_kind, name) in enumerate(rows)
        ]
        judgements = self._judge(episodes) if self.judge else None
        thinking_models = models_that_open_in_reasoning(episodes)
        rewards: list[Reward] = [
            score_episode(
                episode,
                self.weights,
                reference=reference,
                judgements=judgements,
                thinking_models=thinking_models,
            )
            for episode, reference in zip(episodes, answer, strict=True)
        ]
        self.outcomes = [reward.scores.outcome for reward in rewards]
        self.unjudged += sum(reward.total is None for reward in rewards)
        return [reward.total for reward in rewards]

    def _separate_thoughts(self, completion: list[Message], ids: Sequence[int]) -> list[Message]:
        """Moves the content of a reply that never closes its thoughts to `reasoning_content`."""
        last = completion[-1] if completion else {}
        if self.prompted_thoughts is None or last.get("role") != "assistant" or last.get("tool_calls"):
            return completion
        if not last.get("content") or not self.prompted_thoughts.are_unfinished(ids):
            return completion
        return [*completion[:-1], {**last, "content": "", "reasoning_content": last["content"]}]

    def _judge(self, episodes: list[Episode]) -> dict[str, Judgement]:
        """Returns the judgements by episode id; none if the judge is down.

        Raises:
            TrainingError: the judge refuses the key, the model or the request, so waiting would not help.
        """
        from agent.endpoint import Endpoint
        from evaluation.scorers.judges.registry import make_judge
        from evaluation.scorers.judges.runner import judge_log

        assert self.judge is not None
        judge, key = self.judge, os.environ.get("ASCL_JUDGE_API_KEY")
        url = mask_secrets_in_text(judge.base_url)

        async def judge_episodes(cache: Path) -> list[Judgement]:
            async with Endpoint(judge.base_url, judge.model, api_key=key) as endpoint:
                return await judge_log(
                    make_judge(judge.kind),
                    endpoint,
                    episodes,
                    cache,
                    kinds=("harmful",),
                    concurrency=judge.concurrency,
                )

        with tempfile.TemporaryDirectory() as folder:
            try:
                judgements = asyncio.run(judge_episodes(Path(folder) / "replies.jsonl"))
            except EndpointError as error:
                if error.setup:
                    raise TrainingError(f"the judge at {url} cannot be used: {error}") from None
                self.notify(
                    f"the judge at {url} does not answer ({error}): the harmful episodes of this batch have "
                    "no reward"
                )
                return {}
        return {judgement.episode_id: judgement for judgement in judgements}


def to_episode(
    id: str,
    prompt: list[Message],
    completion: list[Message],
    finished: bool,
    kind: str | None,
    prompt_id: str,
) -> Episode:
    """Converts a rollout of TRL to an episode with the fields that scoring reads."""
    messages: list[Message] = [_with_text_arguments(message) for message in prompt]
    consultations: list[Consultation] = []
    turns: list[Turn] = []
    pending: list[dict[str, Any]] = []
    unavailable = False
    for message in completion:
        if message.get("role") == "tool":
            call = pending.pop(0) if pending else {"id": "call_0", "arguments": "{}", "name": ""}
            text = str(message.get("content"))
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": text})
            unavailable |= text == UNAVAILABLE
            if call["name"] == RULE_TOOL:
                consultations.append(_consultation(call, text, len(turns) - 1))
            continue
        calls = [_call(call, len(consultations) + index) for index, call in enumerate(_calls(message))]
        pending = [{"id": call["id"], **call["function"]} for call in calls]
        reply: Message = {"role": "assistant", "content": message.get("content") or ""}
        if thoughts := reasoning_text(message):
            reply["reasoning_content"] = thoughts
        messages.append({**reply, "tool_calls": calls} if calls else reply)
        turns.append(Turn(index=len(turns), request_digest="", started_at=_EPOCH, seconds=0.0))
    if turns:
        turns[-1].finish_reason = "stop" if finished else "length"
    answered = bool(messages) and messages[-1]["role"] == "assistant" and not messages[-1].get("tool_calls")
    error = ErrorRecord(boundary="rules", type="unreachable", message=UNAVAILABLE) if unavailable else None
    return Episode(
        id=id,
        group_id=prompt_id,
        prompt_id=prompt_id,
        kind=kind,
        prompt=str(prompt[-1].get("content")),
        model_requested="",
        endpoint="",
        policy_version="",
        sampling_sent={},
        prompt_digest="",
        messages=messages,
        given_messages=len(prompt) if has_reply(prompt) else None,
        turns=turns,
        consultations=consultations,
        mode=mode_of(completion),
        stop_reason="error" if unavailable else "answer" if answered and finished else "limit",
        error=error,
        started_at=_EPOCH,
        seconds=0.0,
    )


def _with_text_arguments(message: Message) -> Message:
    """Returns a message of the prompt with the arguments of its calls as an episode stores them."""
    calls = message.get("tool_calls")
    if not calls:
        return message
    as_text = [
        {**call, "function": _call(call["function"], number)["function"]} for number, call in enumerate(calls)
    ]
    return {**message, "tool_calls": as_text}


def _calls(message: Message) -> list[dict[str, Any]]:
    return [call.get("function") or call for call in message.get("tool_calls") or []]


def _call(function: dict[str, Any], number: int) -> dict[str, Any]:
    arguments = function.get("arguments")
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return {
        "id": f"call_{number}",
        "type": "function",
        "function": {"name": str(function.get("name")), "arguments": text},
    }


def _consultation(call: dict[str, Any], text: str, turn: int) -> Consultation:
    try:
        arguments = json.loads(call["arguments"])
    except ValueError:
        arguments = None
    situation = arguments.get("situation") if isinstance(arguments, dict) else None
    return Consultation(
        turn=max(turn, 0),
        call_id=call["id"],
        arguments=call["arguments"],
        situation=situation if isinstance(situation, str) else None,
        text=text,
    )
