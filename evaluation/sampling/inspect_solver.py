"""An arm as a solver of Inspect, its rewards as scorers.

The solver lets our `Agent` answer and appends the episode to a log. That log is the truth; Inspect's log is a
view of it, with the whole episode in each sample's store. Inspect asks the model nothing itself, so none of
its retries or limits applies: the agent has its own.
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
from agent.episode import iter_log, reply_positions
from agent.errors import LogError
from agent.export import reward_scores, sample_metadata
from agent.export.inspect_messages import chat_messages, model_output
from agent.rollout import check_log_settings
from evaluation.sampling.arms import ALWAYS, ArmKind, make_agent
from evaluation.sampling.sample import check_same_arm
from evaluation.scorers import score_episode

STORED = "ascl_episode"


@solver
def consulting_agent(arms: Arms, samples: int) -> Solver:
    """Let the agent of the arm answer, log the episode, and show it in Inspect's state."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        index = state.epoch - 1
        force = ALWAYS.mode_of(index, samples) if arms.arm == "always" else None
        async with arms.open() as (agent, log):
            episode = arms.logged(str(state.sample_id), index, state.input_text)
            if episode is None:
                episode = await agent.run(
                    state.input_text,
                    prompt_id=str(state.sample_id),
                    kind=state.metadata.get("kind"),
                    sample_index=index,
                    force=force,
                )
                log.append(episode)
                arms.remember(episode)
        show(episode, state)
        if episode.stop_reason == "error":
            raise RuntimeError(episode.error.message if episode.error else "the episode failed")
        return state

    return solve


def show(episode: Episode, state: TaskState) -> None:
    """Write an episode into Inspect's state: messages, last output, our metadata, and itself in the store."""
    state.messages = chat_messages(episode)
    if places := reply_positions(episode):
        state.output = model_output(episode, episode.turns[-1], state.messages[places[-1]])
    state.metadata.update(sample_metadata(episode))
    state.store.set(STORED, episode.model_dump(mode="json"))
    state.completed = True


@scorer(metrics=[mean()])
def reward() -> Scorer:
    """The reward of `ascl-eval score`, offline; what cannot be judged is unscored, not zero."""

    async def score(state: TaskState, target: Target) -> Score:
        line = score_episode(_episode(state), reference=target.text or None)
        found = reward_scores(line.model_dump(mode="json"))["reward"]
        return found.model_copy(
            update={"answer": state.output.completion, "metadata": line.model_dump(mode="json")}
        )

    return score


@scorer(metrics=[mean()])
def consulted() -> Scorer:
    """1 where the model consulted, so that the mean is the consult rate."""

    async def score(state: TaskState, target: Target) -> Score:
        return Score(value=float(_episode(state).mode == "consult"))

    return score


def _episode(state: TaskState) -> Episode:
    return Episode.model_validate(state.store.get(STORED))


@dataclass
class Arms:
    """What the samples of a task share: connections and the log, open while any of them is under way."""

    base_url: str
    model: str
    rules: str | None
    arm: ArmKind
    log: Path
    options: dict[str, Any]
    _users: int = 0
    _shared: tuple[Agent, EpisodeLog] | None = None
    _logged: dict[tuple[str, int], Episode] | None = None
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    _opening: asyncio.Lock = field(default_factory=asyncio.Lock)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[tuple[Agent, EpisodeLog]]:
        """The agent and the log; the last sample that leaves closes them.

        Raises:
            AgentError: when the endpoint, the rule service or the log cannot be used.
        """
        async with self._opening:
            if self._shared is None:
                async with AsyncExitStack() as stack:  # closes what was opened where the rest cannot be
                    self._shared = await self._made(stack)
                    self._stack = stack.pop_all()
            shared = self._shared
            self._users += 1
        try:
            yield shared
        finally:
            self._users -= 1
            async with self._opening:  # so that no sample begins with what is being closed
                if self._users == 0 and self._shared is not None:
                    self._shared = None
                    await self._stack.aclose()

    def logged(self, prompt_id: str, sample: int, text: str) -> Episode | None:
        """The episode that the log holds of a sample; None for one still to be asked.

        Raises:
            LogError: when it is of another text.
        """
        episode = (self._logged or {}).get((prompt_id, sample))
        if episode is not None and episode.prompt != text:
            raise LogError(f"{self.log} holds another text for the prompt {prompt_id!r}: use another log=")
        return episode

    def remember(self, episode: Episode) -> None:
        """Note an episode that was logged; one in error is asked again."""
        if self._logged is not None and episode.stop_reason != "error":
            self._logged[episode.prompt_id, episode.sample_index] = episode

    async def _made(self, stack: AsyncExitStack) -> tuple[Agent, EpisodeLog]:
        key, token = os.environ.get("OPENAI_API_KEY"), os.environ.get("ASCL_RULES_TOKEN")
        endpoint = await stack.enter_async_context(Endpoint(self.base_url, self.model, api_key=key))
        rules = None
        if self.rules is not None:
            rules = await stack.enter_async_context(RulesClient(self.rules, token))
        agent = await make_agent(self.arm, endpoint, rules, **self.options)
        check_same_arm(self.log, self.arm)
        await check_log_settings(self.log, agent)
        if self._logged is None:
            self._logged = {}
            for episode in iter_log(self.log) if self.log.is_file() else ():
                self.remember(episode)
        return agent, stack.enter_context(EpisodeLog(self.log))


@modelapi(name="ascl")
class AgentModelAPI(ModelAPI):
    """Gives Inspect's log the model's name and address; the solver, and nobody else, asks the model."""

    async def generate(
        self,
        input: list[ChatMessage],
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        """Raises RuntimeError: a solver or scorer that generates has no place in this task."""
        raise RuntimeError("the model of this task is asked by the solver `consulting_agent` only")
