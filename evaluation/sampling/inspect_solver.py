"""An arm as a solver of Inspect, and its rewards as scorers.

The solver lets the `Agent` answer and appends the episode to a log. That log is authoritative; Inspect's log
is a view of it, with the complete episode in each sample's store. Inspect does not call the model itself, so
its retries and limits do not apply: the agent has its own.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inspect_ai.model import ChatMessage, GenerateConfig, ModelAPI, ModelOutput, modelapi
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer
from inspect_ai.solver import Generate, Solver, TaskState, solver
from inspect_ai.tool import ToolChoice, ToolInfo

from agent import Agent, Endpoint, Episode, EpisodeLog, RulesClient
from agent.episode import Message, iter_log, reply_positions, without_system
from agent.errors import LogError
from agent.export import reward_scores, sample_metadata
from agent.export.inspect_messages import chat_messages, model_output
from agent.rollout import check_log_settings
from evaluation.sampling.arms import ALWAYS, ArmKind, make_agent
from evaluation.sampling.sample import check_same_arm
from evaluation.scorers import score_episode
from evaluation.scorers.text import closes_unopened_reasoning, final_text, is_unfinished

STORE_KEY = "ascl_episode"


@solver
def consulting_agent(arms: Arms, samples: int) -> Solver:
    """Lets the agent of the arm answer, logs the episode and copies it into Inspect's state."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        index = state.epoch - 1
        force = ALWAYS.mode_of(index, samples) if arms.arm == "always" else None
        async with arms.open() as (agent, log):
            history = state.metadata.get("history") or []
            episode = arms.find_episode(str(state.sample_id), index, state.input_text, history)
            if episode is None:
                episode = await agent.run(
                    state.input_text,
                    prompt_id=str(state.sample_id),
                    kind=state.metadata.get("kind"),
                    sample_index=index,
                    history=history,
                    force=force,
                )
                log.append(episode)
                arms.remember(episode)
        update_state(state, episode)
        if episode.stop_reason == "error":
            raise RuntimeError(episode.error.message if episode.error else "the episode failed")
        return state

    return solve


def update_state(state: TaskState, episode: Episode) -> None:
    """Copies an episode into Inspect's state: messages, last output, metadata and the whole episode."""
    state.messages = chat_messages(episode)
    if positions := reply_positions(episode):
        state.output = model_output(episode, episode.turns[-1], state.messages[positions[-1]])
    state.metadata.update(sample_metadata(episode))
    state.store.set(STORE_KEY, episode.model_dump(mode="json"))
    state.completed = True


@scorer(metrics=[mean()])
def reward(arms: Arms | None = None) -> Scorer:
    """Scores an episode as `ascl-eval score` does, offline; without a reward it is unscored, not zero.

    Args:
        arms: the other samples of the task, which show whether the model's template opens thoughts in the
            prompt; None scores each sample by itself.
    """

    async def score(state: TaskState, target: Target) -> Score:
        episode = _read_episode(state)
        # `inspect score` passes the name that the log recorded in place of the object.
        thinking_models = await arms.thinking_models(episode) if isinstance(arms, Arms) else ()
        scored = score_episode(episode, reference=target.text or None, thinking_models=thinking_models)
        row = scored.model_dump(mode="json")
        score = reward_scores(row)["reward"]
        return score.model_copy(update={"answer": state.output.completion, "metadata": row})

    return score


@scorer(metrics=[mean()])
def consulted() -> Scorer:
    """Scores 1 if the model consulted, so that the mean is the consult rate."""

    async def score(state: TaskState, target: Target) -> Score:
        return Score(value=float(_read_episode(state).mode == "consult"))

    return score


def _read_episode(state: TaskState) -> Episode:
    return Episode.model_validate(state.store.get(STORE_KEY))


@dataclass
class Arms:
    """Connections and the log, shared by the samples of a task and open while any of them runs."""

    base_url: str
    model: str
    rules: str | None
    arm: ArmKind
    log: Path
    options: dict[str, Any]
    _users: int = 0
    _shared: tuple[Agent, EpisodeLog] | None = None
    _episodes: dict[tuple[str, int], Episode] | None = None
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    _opening: asyncio.Lock = field(default_factory=asyncio.Lock)
    _opens_in_reasoning: dict[str, bool] = field(default_factory=dict)
    """Model -> whether one of its finished replies closes thoughts that it did not open."""
    _progress: asyncio.Condition = field(default_factory=asyncio.Condition)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[tuple[Agent, EpisodeLog]]:
        """Yields the agent and the log; the last sample that leaves closes them.

        Raises:
            AgentError: the endpoint, the rule service or the log cannot be used.
        """
        async with self._opening:
            if self._shared is None:
                async with AsyncExitStack() as stack:  # if one cannot be opened, closes the others
                    self._shared = await self._connect(stack)
                    self._stack = stack.pop_all()
            shared = self._shared
            self._users += 1
        try:
            yield shared
        finally:
            self._users -= 1
            async with self._progress:
                self._progress.notify_all()
            async with self._opening:  # no sample may begin while they are being closed
                if self._users == 0 and self._shared is not None:
                    self._shared = None
                    await self._stack.aclose()

    def find_episode(self, prompt_id: str, sample: int, text: str, history: list[Message]) -> Episode | None:
        """Returns the episode of a sample from the log; None if it is not there.

        Raises:
            LogError: the episode has a different prompt text or history.
        """
        episode = (self._episodes or {}).get((prompt_id, sample))
        given = [*history, {"role": "user", "content": text}]
        if episode is not None and without_system(episode.messages)[: len(given)] != given:
            raise LogError(
                f"{self.log} has a different text for the prompt {prompt_id!r}: use a different log="
            )
        return episode

    def remember(self, episode: Episode) -> None:
        """Stores an episode of the log, unless it ended in an error: that sample is run again."""
        if self._episodes is not None and episode.stop_reason != "error":
            self._episodes[episode.prompt_id, episode.sample_index] = episode
        if closes_unopened_reasoning(episode):
            self._opens_in_reasoning[episode.model_requested] = True
        elif final_text(episode) and not is_unfinished(episode):
            self._opens_in_reasoning.setdefault(episode.model_requested, False)

    async def thinking_models(self, episode: Episode) -> frozenset[str]:
        """Returns the models known to open thoughts in the prompt; see `models_that_open_in_reasoning`.

        If the episode was cut off, waits until a finished reply of its model shows it, or until no sample is
        being answered.
        """

        def is_known() -> bool:
            return episode.model_requested in self._opens_in_reasoning or self._users == 0

        if is_unfinished(episode):
            async with self._progress:
                await self._progress.wait_for(is_known)
        return frozenset(model for model, opens in self._opens_in_reasoning.items() if opens)

    async def _connect(self, stack: AsyncExitStack) -> tuple[Agent, EpisodeLog]:
        key, token = os.environ.get("OPENAI_API_KEY"), os.environ.get("ASCL_RULES_TOKEN")
        endpoint = await stack.enter_async_context(Endpoint(self.base_url, self.model, api_key=key))
        rules = None
        if self.rules is not None:
            rules = await stack.enter_async_context(RulesClient(self.rules, token))
        agent = await make_agent(self.arm, endpoint, rules, **self.options)
        check_same_arm(self.log, self.arm)
        await check_log_settings(self.log, agent)
        if self._episodes is None:
            self._episodes = {}
            for episode in iter_log(self.log) if self.log.is_file() else ():
                self.remember(episode)
        return agent, stack.enter_context(EpisodeLog(self.log))


@modelapi(name="ascl")
class AgentModelAPI(ModelAPI):
    """Gives Inspect's log the name and address of the model; only the solver calls the model."""

    async def generate(
        self,
        input: list[ChatMessage],
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        """Raises RuntimeError: no other solver or scorer of this task may call the model."""
        raise RuntimeError("only the solver `consulting_agent` may call the model of this task")
