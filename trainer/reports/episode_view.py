"""Prints a checked episode to the terminal. Segment titles make it readable without colours."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trainer.reports.episode_check import CheckedEpisode, Token

TITLES = {
    "prompt": "prompt, no loss",
    "policy": "written by the policy, contributes to the loss",
    "masked": "tool result or agent's text, no loss",
}
MAX_TOKENS = 160
"""Tokens printed of a segment that does not contribute to the loss."""


def print_episode(checked: CheckedEpisode, whole: bool = False) -> None:
    """Prints an episode. Shortens long segments without loss unless `whole` is set."""
    console = Console(highlight=False)
    episode = checked.episode
    console.print(
        f"episode {episode.episode_id}: {checked.kind or 'unknown kind'}, mode {episode.mode}"
        f"{' (forced)' if episode.forced else ''}, sampled by {checked.policy_version}",
        soft_wrap=True,
        markup=False,
    )
    source = "as logged" if checked.logged_tokens else "rendered from text: the log has no token ids"
    console.print(f"{len(checked.tokens)} tokens, {source}", soft_wrap=True)
    for role, tokens in checked.segments():
        logprobs = [token.logprob for token in tokens if token.logprob is not None]
        mean = f", mean log-probability {sum(logprobs) / len(logprobs):.3f}" if logprobs else ""
        style = "bold green" if role == "policy" else "dim"
        console.print(f"\n── {TITLES[role]}: {len(tokens)} tokens{mean}", style=style, soft_wrap=True)
        console.print(
            _format_tokens(tokens if whole or role == "policy" else _shorten(tokens)), soft_wrap=True
        )
    console.print(_group_table(checked))


def _shorten(tokens: list[Token], max_tokens: int = MAX_TOKENS) -> list[Token]:
    """Keeps the beginning and the end."""
    if len(tokens) <= max_tokens:
        return tokens
    omitted = Token(-1, f"\n… {len(tokens) - max_tokens} tokens …\n", False, None)
    return [*tokens[: max_tokens // 2], omitted, *tokens[-max_tokens // 2 :]]


def _format_tokens(tokens: list[Token]) -> Text:
    """Colours tokens of the policy from green (likely) to red (unlikely); dims all others."""
    text = Text()
    for token in tokens:
        if not token.wrote:
            text.append(token.text, style="dim")
        elif token.logprob is None:
            text.append(token.text, style="green")
        else:
            surprise = min(1.0, -token.logprob / 5)
            red, green = int(80 + 175 * surprise), int(200 - 140 * surprise)
            text.append(token.text, style=f"rgb({red},{green},60)")
    return text


def _group_table(checked: CheckedEpisode) -> Table:
    table = Table("", "episode", "mode", "reward", "weight", "A by IFPO", "A by GRPO", title="its group")
    for member in checked.group:
        table.add_row(
            "→" if member.episode_id == checked.episode.episode_id else "",
            member.episode_id,
            member.mode + (" (forced)" if member.forced else ""),
            f"{member.reward:.3f}",
            f"{member.weight:.3f}",
            f"{member.advantage_ifpo:+.3f}",
            f"{member.advantage_grpo:+.3f}",
        )
    return table
