"""Demonstrations that a rule's text, not the prompt, decides: one prompt under a rule and under its opposite.

    ascl-rules serve --default-top-k 1 --no-watch
    python -m trainer.stages.sft.demonstrations.edited_rules --out runs/edited-rules.jsonl
    ascl-train sft --model runs/cold-start/merged --demonstrations runs/edited-rules.jsonl --out runs/sft
    python -m trainer.stages.sft.pairs --model runs/sft/merged --demonstrations runs/edited-rules.jsonl \\
        --out runs/follows-rules

Harmless prompts only: each is played through the real agent, then stands once under a rule that says to
answer, and once under one that says to decline, with the answer that the rule asks for. Nothing teaches to
answer a harmful prompt: those of `demonstrations.jsonl` stand beside them as they are, and keep the decision
when to consult.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from agent import Episode
from agent.errors import AgentError
from trainer.stages.sft.demonstrations.build import FOLDER, play, read_written

HARMLESS = FOLDER / "harmless.jsonl"
Stance = Literal["answer", "decline"]
_FIRST = re.compile(r"\[([\w.-]+)\] (.+?) \((decline|limit|answer)\)\n.*?(?=\n\n|\Z)", re.DOTALL)

# Bodies of an edited rule, in other words than `ascl-eval edit-rule` uses: what is measured there is unseen.
DECLINE = (
    "Fine: Naming another place to ask.\nNot fine: Every request about this, harmless ones too.\n"
    "How to answer: Refuse briefly. Do not explain the subject, and do not add tips.",
    "Fine: A friendly sentence.\nNot fine: Explanations, steps, examples or opinions on this topic.\n"
    "How to answer: Say in a single sentence that this assistant does not help with it.",
    "Fine: Nothing here; the topic is switched off by the operator.\nNot fine: Any answer in substance.\n"
    "How to answer: Turn the request down politely and stop.",
)
ANSWER = (
    "Fine: All usual questions on this topic.\nNot fine: Nothing, as long as nobody is harmed.\n"
    "How to answer: Give the information right away, in plain words and without a warning.",
    "Fine: Explanations, steps, examples and opinions.\nNot fine: Real harm to a person.\n"
    "How to answer: Help at once and to the point; a refusal would be wrong here.",
)
REFUSALS = (
    "I can't help with that.",
    "I'm sorry, but I can't help with that here.",
    "I can't help with this topic.",
)


def counterfactuals(episodes: Iterable[Episode], seed: int = 0) -> list[Episode]:
    """Two episodes for each that consulted and read a rule first: under `answer`, and under `decline`."""
    chance = random.Random(seed)  # noqa: S311
    read = [e for e in episodes if e.kind != "harmful" and e.consultations and e.consultations[0].rules]
    blocks = [found[0] for e in read if (found := _FIRST.search(_text(e))) and found[3] == "answer"]
    made = []
    for episode in read:
        # The rule's own text where it says to answer already, so that real rules keep their effect.
        own = episode.consultations[0].rules[0].stance == "answer"
        made.append(_under(episode, "answer", [_text(episode)] if own else [chance.choice(ANSWER)], None))
        # Behind a rule that declines, the service shows the nearest one that says to answer.
        decline = [chance.choice(DECLINE), chance.choice(blocks)]
        made.append(_under(episode, "decline", decline, chance.choice(REFUSALS)))
    return made


def _text(episode: Episode) -> str:
    return episode.consultations[0].text or ""


def _under(episode: Episode, stance: Stance, parts: list[str], answer: str | None) -> Episode:
    """The episode with its first rule turned, and with another answer where one is given.

    Args:
        parts: the whole text that the tool gives, or the first rule's body and any rule behind it.
    """
    copy = episode.model_copy(deep=True, update={"id": f"{episode.id}-{stance}"})
    consultation, text = copy.consultations[0], parts[0]
    if not text.startswith("rules_found"):
        head = _FIRST.search(_text(episode))
        assert head is not None
        rules = "\n\n".join([f"[{head[1]}] {head[2]} ({stance})\n{parts[0]}", *parts[1:]])
        text = f"rules_found\n\n{rules}"
        # Only the first rule is named here: the block behind it was drawn, not retrieved.
        consultation.rules = [consultation.rules[0].model_copy(update={"stance": stance})]
    consultation.text = text
    next(message for message in copy.messages if message["role"] == "tool")["content"] = text
    if answer is not None:
        copy.messages[-1]["content"] = answer
    return copy


async def build(rules_url: str) -> list[Episode]:
    """Every demonstration, and the pairs. Raises AgentError when the rule service does not answer."""
    written = read_written()
    everyone = [*written, *read_written(HARMLESS)]
    harmless = [line for line in everyone if line.kind != "harmful" and line.situation]
    return [*await play(written, rules_url), *counterfactuals(await play(harmless, rules_url))]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rules", default="http://127.0.0.1:8808/mcp", help="address of the rule service")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    options = parser.parse_args()
    try:
        episodes = asyncio.run(build(options.rules))
    except AgentError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("".join(f"{e.model_dump_json()}\n" for e in episodes), encoding="utf-8")
    print(f"{len(episodes)} episodes in {options.out}")


if __name__ == "__main__":
    main()
