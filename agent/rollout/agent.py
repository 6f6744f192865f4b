"""The agent: answers prompts and records each of them as an episode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agent.endpoint import Endpoint
from agent.episode import (
    ConversationTurn,
    Episode,
    Limits,
    Listener,
    Message,
    Mode,
    OnRulesError,
    RecordedReplies,
    ToolMode,
    digest_of,
    text_digest,
)
from agent.rollout.context import RolloutContext
from agent.rollout.forced_modes import DEFAULT_DIRECT_DRAWS
from agent.rollout.state_machine import EpisodeRun
from agent.tools import RULE_TOOL, CustomTool, RulesClient


class Agent:
    """Answers prompts through an endpoint and lets the model consult the rules. `run` may run concurrently.

    Args:
        endpoint: opened (`async with`) by the caller.
        rules: opened by the caller; None offers no rule tool.
        tools: custom tools, offered before the rule tool.
        sampling: fields of every request, such as `temperature` and `max_tokens`.
        system: the system text; None for the packaged text or, if the service's rulebook has a different
            scope, for one with the service's guidance.
        tool_mode: `text` sends the results of `<tool_call>` text as a user message.
        limits: limits of each episode.
        on_rules_error: action if the rules cannot be consulted: let the model `answer` without them,
            `refuse`, or `fail` the episode.
        policy_version: name of the policy's version; recorded, and part of the group id.
        call_token: id of the token that starts a call, for a bias against it in episodes that must answer
            directly; None to sample replies with a call again.
        direct_draws: maximum number of replies sampled for a turn of such an episode, from 1.
        hint_share: share of the prompts whose system text ends with a line about the rules near the prompt.
            All samples of a prompt get it, or none. Needs `rules`.
        rulebook_digest: digest of rules that `system` itself contains, if no service is used; recorded.

    Raises:
        ValueError: if two tools have the same name, or one has the name of the rule tool.
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
        hint_share: float = 0.0,
        rulebook_digest: str | None = None,
    ) -> None:
        custom_tools = {tool.name: tool for tool in tools}
        if len(custom_tools) < len(tools) or RULE_TOOL in custom_tools:
            names = ", ".join(tool.name for tool in tools)
            raise ValueError(
                f"custom tools need unique names other than {RULE_TOOL} (the rule tool): got {names}"
            )
        self.context = RolloutContext(
            endpoint=endpoint,
            rules=rules,
            custom_tools=custom_tools,
            sampling=dict(sampling or {}),
            system=system,
            tool_mode=tool_mode,
            limits=limits or Limits(),
            on_rules_error=on_rules_error,
            policy_version=policy_version,
            call_token=call_token,
            direct_draws=direct_draws,
            hint_share=hint_share,
            rulebook_digest=rulebook_digest,
        )
        """The settings that all episodes share."""

    async def run(
        self,
        prompt: str,
        *,
        prompt_id: str | None = None,
        kind: str | None = None,
        sample_index: int = 0,
        sampling: Mapping[str, Any] | None = None,
        history: list[Message] | None = None,
        recorded: RecordedReplies | None = None,
        force: Mode | None = None,
        conversation: ConversationTurn | None = None,
        stream: bool = False,
        on_event: Listener | None = None,
    ) -> Episode:
        """Answers one prompt.

        A failure of the endpoint or the rule service ends in an episode with `stop_reason` `error` and not in
        an exception, so that one failed episode does not stop the others.

        Args:
            prompt: the user's text.
            prompt_id: recorded; None for a digest of the prompt, and of the history if there is one.
            kind: recorded.
            sample_index: index of this sample of the prompt.
            sampling: fields that override the agent's for this sample, such as a seed.
            history: earlier messages of the conversation, without the system text.
            recorded: replies and consultations of an interrupted run, used instead of new requests.
            force: the mode to force; None leaves the decision to the model.
            conversation: recorded; the place of the prompt in a conversation of several episodes.
            stream: whether `on_event` receives text piece by piece.
            on_event: receives the events of the episode.
        """
        run = EpisodeRun(
            self.context,
            prompt,
            prompt_id or _prompt_digest(prompt, history or [])[:16],
            kind,
            sample_index,
            {**self.context.sampling, **(sampling or {})},
            recorded or RecordedReplies(),
            stream,
            on_event or (lambda event: None),
            force,
            conversation,
        )
        return await run.episode(history or [])


def _prompt_digest(prompt: str, history: list[Message]) -> str:
    return digest_of([history, prompt]) if history else text_digest(prompt)
