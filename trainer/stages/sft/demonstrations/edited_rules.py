"""Demonstrations in which the rule decides, not the prompt: one prompt under a rule and under its opposite.

    ascl-rules serve --default-top-k 1 --no-watch
    python -m trainer.stages.sft.demonstrations.edited_rules --out runs/edited-rules.jsonl
    ascl-train sft --model runs/cold-start/merged --demonstrations runs/edited-rules.jsonl --out runs/sft
    python -m trainer.stages.sft.pairs --model runs/sft/merged --demonstrations runs/edited-rules.jsonl \\
        --out runs/follows-rules

The agent runs harmless prompts only. Each then appears once under a rule to answer and once under a rule to
decline, with the answer that the rule asks for. No episode teaches the model to answer a harmful prompt: the
output also contains the unchanged episodes of `demonstrations.jsonl`, which preserve the decision to consult.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import sys
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Literal

from agent import Episode
from agent.errors import AgentError
from evaluation.runtime import write_atomic
from trainer.stages.sft.demonstrations.build import FOLDER, read_written_demonstrations, record_episodes

HARMLESS = FOLDER / "harmless.jsonl"
Stance = Literal["answer", "decline"]
_FIRST_RULE = re.compile(r"\[([\w.-]+)\] (.+?) \((decline|limit|answer)\)\n.*?(?=\n\n|\Z)", re.DOTALL)

# Bodies of an edited rule. `ascl-eval edit-rule` uses other words, so it measures with unseen text.
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


def counterfactuals(
    episodes: Iterable[Episode], seed: int = 0, held_out_rules: Collection[str] = ()
) -> list[Episode]:
    """Returns two episodes for each harmless one that read a rule: under `answer`, and under `decline`.

    Args:
        episodes: demonstrations.
        seed: seed of the texts that are drawn.
        held_out_rules: rules of which no edit is returned; the other pairs stay the same.
    """
    rng = random.Random(seed)  # noqa: S311
    consulting = [e for e in episodes if e.kind != "harmful" and e.consultations and e.consultations[0].rules]
    answer_rules = [
        match[0]
        for episode in consulting
        if (match := _FIRST_RULE.search(_tool_text(episode))) and match[3] == "answer"
    ]
    results = []
    for episode in consulting:
        # A rule that already says to answer keeps its text, so that real rules keep their effect.
        original = episode.consultations[0].rules[0].stance == "answer"
        answer = [_tool_text(episode)] if original else [rng.choice(ANSWER)]
        results.append(_with_rule(episode, "answer", answer, None))
        # After a rule to decline, the service also returns the nearest rule to answer.
        decline = [rng.choice(DECLINE), rng.choice(answer_rules)]
        results.append(_with_rule(episode, "decline", decline, rng.choice(REFUSALS)))
    return [e for e in results if e.consultations[0].rules[0].id not in held_out_rules]


def _tool_text(episode: Episode) -> str:
    return episode.consultations[0].text or ""


def _with_rule(episode: Episode, stance: Stance, parts: list[str], answer: str | None) -> Episode:
    """Returns a copy of the episode with an edited first rule, and with another answer unless it is None.

    Args:
        parts: the whole tool result, or the body of the first rule and any rules after it.
    """
    copy = episode.model_copy(deep=True, update={"id": f"{episode.id}-{stance}"})
    consultation, text = copy.consultations[0], parts[0]
    if not text.startswith("rules_found"):
        head = _FIRST_RULE.search(_tool_text(episode))
        assert head is not None
        rules = "\n\n".join([f"[{head[1]}] {head[2]} ({stance})\n{parts[0]}", *parts[1:]])
        text = f"rules_found\n\n{rules}"
        # Lists only the first rule: the one after it was drawn at random, not retrieved.
        consultation.rules = [consultation.rules[0].model_copy(update={"stance": stance})]
    consultation.text = text
    next(message for message in copy.messages if message["role"] == "tool")["content"] = text
    if answer is not None:
        copy.messages[-1]["content"] = answer
    return copy


async def build_demonstrations(rules_url: str, held_out_rules: Collection[str] = ()) -> list[Episode]:
    """Returns the episodes of every demonstration, and the pairs, except those of `held_out_rules`.

    Raises:
        AgentError: the rule service does not answer.
    """
    written = read_written_demonstrations()
    candidates = [*written, *read_written_demonstrations(HARMLESS)]
    harmless = [line for line in candidates if line.kind != "harmful" and line.situation]
    demonstrations = await record_episodes(written, rules_url)
    consulting = await record_episodes(harmless, rules_url)
    return [*demonstrations, *counterfactuals(consulting, held_out_rules=held_out_rules)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rules", default="http://127.0.0.1:8808/mcp", help="address of the rule service")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    parser.add_argument(
        "--hold-out", action="append", default=[], metavar="RULE", help="write no pair of this rule"
    )
    options = parser.parse_args()
    try:
        episodes = asyncio.run(build_demonstrations(options.rules, options.hold_out))
    except AgentError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    write_atomic(options.out, (episode.model_dump_json() for episode in episodes), private=False)
    print(f"{len(episodes)} episodes in {options.out}")


if __name__ == "__main__":
    main()
