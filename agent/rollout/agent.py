"""The agent: everything that its episodes share, and one method that answers a prompt."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from agent.endpoint import Endpoint
from agent.episode import (
    Episode,
    Limits,
    Listener,
    Message,
    Mode,
    OnRulesError,
    RecordedReplies,
    ToolMode,
    text_digest,
)
from agent.rollout.forced_modes import DEFAULT_DIRECT_DRAWS
from agent.rollout.state_machine import EpisodeRun
from agent.rollout.system_prompt import system_prompt
from agent.tools import RULE_TOOL, CustomTool, RulesClient, ToolOffer


class Agent:
    """Answers prompts through an endpoint, with rules at hand. `run` may be called many times at once.

    Args:
        endpoint: entered (`async with`) by the caller.
        rules: entered by the caller; None offers no tool.
        tools: tools of the caller's, offered before the rule tool.
        sampling: fields sent with every request, such as `temperature` and `max_tokens`.
        system: the system text; None for the packaged one.
        tool_mode: `text` sends the results of `<tool_call>` text back as a user message.
        limits: where an episode is stopped.
        on_rules_error: when the rules cannot be consulted: let the model `answer` without them, `refuse`, or
            `fail` the episode.
        policy_version: name for the state of the policy, recorded and part of the group.
        call_token: id of the token that opens a call, for a bias against it in episodes that are made to
            answer directly; None to draw such replies again.
        direct_draws: how many replies are drawn for a turn of such an episode at the most, from 1.
        rulebook_digest: of the rules that stand in `system` itself, where no service is asked; recorded.

    Raises:
        ValueError: when two tools have one name, or one has the rule tool's.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        rules: RulesClient | None,
        *,
        tools: Sequence[CustomTool] = (),
        sampling: Mapping[str, Any] | None = None,
        system: str | None = None,
        tool_mode: ToolMode = "native",
        limits: Limits | None = None,
        on_rules_error: OnRulesError = "answer",
        policy_version: str = "base",
        call_token: int | None = None,
        direct_draws: int = DEFAULT_DIRECT_DRAWS,
        rulebook_digest: str | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.rules = rules
        self.own_tools = {tool.name: tool for tool in tools}
        if len(self.own_tools) < len(tools) or RULE_TOOL in self.own_tools:
            names = ", ".join(tool.name for tool in tools)
            raise ValueError(
                f"tools need names of their own, and {RULE_TOOL} is the rule tool's: got {names}"
            )
        self.sampling = dict(sampling or {})
        self.system = system_prompt() if system is None else system
        self.tool_mode = tool_mode
        self.limits = limits or Limits()
        self.on_rules_error = on_rules_error
        self.policy_version = policy_version
        self.call_token = call_token
        self.direct_draws = direct_draws
        self.rulebook_digest = rulebook_digest
        self._offer: ToolOffer | None = None
        self._connecting = asyncio.Lock()

    def offered(self, offer: ToolOffer | None) -> list[dict[str, Any]]:
        """The tools as sent: the caller's, then the rule tool."""
        own = [tool.schema for tool in self.own_tools.values()]
        return [*own, offer.tool] if offer else own

    def forget_rules(self) -> None:
        """Read the tool and the rulebook's digest again before the next prompt."""
        self._offer = None

    async def connect(self) -> ToolOffer | None:
        """Read the tool and the rulebook's digest, once; None without a rule service.

        Raises:
            RulesError: when the service cannot be asked.
        """
        if self.rules is None:
            return None
        async with self._connecting:
            if self._offer is None:
                digest = (await self.rules.rulebook())["digest"]
                self._offer = ToolOffer(await self.rules.tool(), digest)
            return self._offer

    async def run(
        self,
        prompt: str,
        *,
        prompt_id: str | None = None,
        kind: str | None = None,
        sample_index: int = 0,
        sampling: Mapping[str, Any] | None = None,
        history: list[Message] | None = None,
        memory: RecordedReplies | None = None,
        force: Mode | None = None,
        stream: bool = False,
        on_event: Listener | None = None,
    ) -> Episode:
        """Answer one prompt.

        A fault of the endpoint or the rule service ends in an episode with `stop_reason` `error`, not in an
        exception, so that one bad episode does not take its siblings with it.

        Args:
            prompt: the user's text.
            prompt_id: None for a digest of the prompt.
            kind: recorded.
            sample_index: which sample of the prompt this is.
            sampling: fields that differ from the agent's for this sample only, such as a seed.
            history: earlier messages of the conversation, without the system text.
            memory: replies and consultations of an interrupted run, used instead of asking again.
            force: the mode that the episode is brought into; None leaves the decision to the model.
            stream: whether text reaches `on_event` piece by piece.
            on_event: told what happens as it happens.
        """
        work = EpisodeRun(
            self,
            prompt,
            prompt_id or text_digest(prompt)[:16],
            kind,
            sample_index,
            {**self.sampling, **(sampling or {})},
            memory or RecordedReplies(),
            stream,
            on_event or (lambda event: None),
            force,
        )
        return await work.episode(history or [])
