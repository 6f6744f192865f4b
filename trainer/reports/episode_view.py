"""A checked episode on the terminal: segments in words and colours, so that it reads without colours too."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trainer.reports.episode_check import Checked, Token

TITLES = {
    "prompt": "prompt, no loss",
    "policy": "written by the policy, carries loss",
    "masked": "tool result or agent's text, no loss",
}


def print_episode(checked: Checked, whole: bool = False) -> None:
    """Print it; of a long prompt only the ends, unless `whole`."""
    console = Console(highlight=False)
    one = checked.episode
    console.print(
        f"episode {one.episode_id}: {checked.kind or 'unknown kind'}, mode {one.mode}"
        f"{' (forced)' if one.forced else ''}, sampled by {checked.policy_version}",
        soft_wrap=True,
        markup=False,
    )
    source = "as logged" if checked.logged_tokens else "rendered from text: the log has no token ids"
    console.print(f"{len(checked.tokens)} tokens, {source}", soft_wrap=True)
    for role, tokens in checked.segments():
        scores = [token.logprob for token in tokens if token.logprob is not None]
        mean = f", mean log-probability {sum(scores) / len(scores):.3f}" if scores else ""
        style = "bold green" if role == "policy" else "dim"
        console.print(f"\n── {TITLES[role]}: {len(tokens)} tokens{mean}", style=style, soft_wrap=True)
        console.print(_coloured(tokens if whole or role == "policy" else _ends(tokens)), soft_wrap=True)
    console.print(_table(checked))


def _ends(tokens: list[Token], most: int = 160) -> list[Token]:
    if len(tokens) <= most:
        return tokens
    cut = Token(-1, f"\n… {len(tokens) - most} tokens …\n", False, None)
    return [*tokens[: most // 2], cut, *tokens[-most // 2 :]]


def _coloured(tokens: list[Token]) -> Text:
    """Tokens of the policy in green, the less likely the nearer to red; others dim."""
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


def _table(checked: Checked) -> Table:
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
