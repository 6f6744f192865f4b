"""Detects completions that never close the thoughts that the chat template opens in the prompt.

R1, QwQ, Qwen3.5 and Nemotron end their prompts with `<think>`. A completion that is cut off before `</think>`
contains no tag at all, so its text alone looks like an answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.replies import find_thoughts, opens_thoughts


@dataclass(frozen=True)
class PromptedThoughts:
    """A chat template that opens the thoughts of every reply."""

    tokenizer: Any
    header: str
    """Generation prompt of the template; it ends with the opening tag."""

    def are_unfinished(self, completion_ids: Sequence[int]) -> bool:
        """Returns whether the last reply of a completion with its tool results closes no thoughts."""
        text = self.tokenizer.decode(completion_ids, skip_special_tokens=False)
        return find_thoughts(text.rpartition(self.header)[2], opened=True).unfinished


def prompted_thoughts(
    tokenizer: Any, template: str | None = None, options: Mapping[str, Any] | None = None
) -> PromptedThoughts | None:
    """Returns the opening of thoughts in a tokenizer's template; None if it has none or cannot be rendered.

    Args:
        template: replaces the tokenizer's own chat template, as TRL's training templates do.
        options: `chat_template_kwargs`, such as `{"enable_thinking": False}`.
    """
    user = [{"role": "user", "content": "x"}]
    try:
        plain, asking = (
            tokenizer.apply_chat_template(
                user,
                chat_template=template,
                add_generation_prompt=is_asking,
                tokenize=False,
                **(options or {}),
            )
            for is_asking in (False, True)
        )
    except Exception:  # a template is a program: it may raise any error
        return None
    header = asking.removeprefix(plain)
    return PromptedThoughts(tokenizer, header) if header and opens_thoughts(header) else None
