"""Settings and services that all episodes of an agent share."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.endpoint import Endpoint
from agent.episode import Limits, OnRulesError, ToolMode, digest_of, text_digest
from agent.rollout.forced_modes import DEFAULT_DIRECT_DRAWS
from agent.rollout.system_prompt import system_prompt
from agent.tools import CustomTool, RulesClient, ToolOffer


class _OfferCache:
    """The rule tool and the rulebook's digest, once read from the service."""

    def __init__(self) -> None:
        self.offer: ToolOffer | None = None
        self.lock = asyncio.Lock()


@dataclass(frozen=True)
class RolloutContext:
    """The endpoint, the rule service and the settings of an agent. `Agent` describes the settings."""

    endpoint: Endpoint
    rules: RulesClient | None
    custom_tools: Mapping[str, CustomTool]
    """Custom tools by name."""
    sampling: Mapping[str, Any]
    system: str | None
    """None: the packaged text, or one with the rule service's guidance."""
    tool_mode: ToolMode = "native"
    limits: Limits = field(default_factory=Limits)
    on_rules_error: OnRulesError = "answer"
    policy_version: str = "base"
    call_token: int | None = None
    direct_draws: int = DEFAULT_DIRECT_DRAWS
    rulebook_digest: str | None = None
    hint_share: float = 0.0
    """Share of the prompts that get a hint, from 0 (none) to 1 (all)."""
    sampling_effective: Mapping[str, Any] | None = None
    """Sampling fields that are known to be in force; None if only replies may name them."""
    _cache: _OfferCache = field(default_factory=_OfferCache, init=False, repr=False, compare=False)

    async def connect(self) -> ToolOffer | None:
        """Returns the rule tool and the rulebook's digest, read once; None without a rule service.

        Raises:
            RulesError: if the service cannot be queried.
        """
        if self.rules is None:
            return None
        async with self._cache.lock:
            if self._cache.offer is None:
                digest = (await self.rules.rulebook())["digest"]
                tool, guidance = await self.rules.tool(), None
                if self.system is None:
                    guidance = await self.rules.guidance()
                self._cache.offer = ToolOffer(tool, digest, guidance)
            return self._cache.offer

    def forget_rules(self) -> None:
        """Makes the next episode read the tool and the rulebook's digest again."""
        self._cache.offer = None

    def system_text(self, offer: ToolOffer | None) -> str:
        """Returns the system text of an episode with this offer."""
        if self.system is not None:
            return self.system
        return system_prompt(guidance=offer.guidance if offer is not None else None)

    def wants_hint(self, prompt_id: str) -> bool:
        """Returns whether episodes of this prompt get a hint: all of its samples, or none of them."""
        if self.rules is None or self.hint_share <= 0:
            return False
        return int(text_digest(f"hint {prompt_id}")[:8], 16) < self.hint_share * 2**32

    def offered(self, offer: ToolOffer | None) -> list[dict[str, Any]]:
        """Returns the tools of a request: the custom tools, then the rule tool."""
        custom = [tool.schema for tool in self.custom_tools.values()]
        return [*custom, offer.tool] if offer else custom

    async def log_settings(self) -> dict[str, Any]:
        """Returns the settings that all episodes of a log must share; the endpoint's URL may change.

        Raises:
            RulesError: if the rule service cannot be queried.
        """
        offer = await self.connect()
        tools = self.offered(offer)
        return {
            "model": self.endpoint.model,
            "policy_version": self.policy_version,
            "rulebook_digest": offer.digest if offer else self.rulebook_digest,
            "tool_schema_digest": digest_of(tools) if tools else None,
            "prompt_digest": text_digest(self.system_text(offer)),
            "sampling": dict(self.sampling),
            "tool_mode": self.tool_mode,
            **({} if self.endpoint.api == "chat" else {"api": self.endpoint.api}),
            # Both change how direct samples are obtained.
            **({} if self.call_token is None else {"call_token": self.call_token}),
            **({} if self.direct_draws == DEFAULT_DIRECT_DRAWS else {"direct_draws": self.direct_draws}),
            **({} if self.hint_share == 0 else {"hint_share": self.hint_share}),
            "on_rules_error": self.on_rules_error,
            "limits": self.limits.model_dump(),
        }
