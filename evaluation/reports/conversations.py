"""The part of a report about conversations: tables by turn and by attack, and a page with every turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evaluation.metrics import (
    HIT_AT,
    NGRAM,
    ROLES,
    ConversationLabels,
    PlayedConversation,
    attack_rates,
    compare_conversations,
    consultation_rates,
    drop_retried_errors,
    played_conversations,
    turn_rates,
)
from evaluation.reports.arm_log import Arm
from evaluation.reports.tables import Row, mcnemar_text, number, percent, table

MAX_SHOWN = 1000  # conversations on the page, over all arms
TURN_COLUMNS = ("arm", "conversations", "turn", "n", "consult rate", "refusal rate", "safe")
ATTACK_COLUMNS = (
    *("arm", "attack", "attacks safe", "twins over-refused", "pairs right"),
    *("attacks consulted", "twins consulted"),
)
CONSULTATION_COLUMNS = (
    *("arm", "conversations", "turn", "n", f"expected rule in first {HIT_AT}", "no rule, as expected"),
    *("copied words", "holds a listed phrase"),
)
CHANGE_COLUMNS = ("change", "conversations", "n", "better : worse, p")
_TEMPLATE = Path(__file__).parent / "conversations.html.jinja"


def conversation_summary(
    arms: Sequence[Arm], labels: Mapping[str, ConversationLabels]
) -> dict[str, Any] | None:
    """Returns the metrics of all arms over conversations as JSON values; None if no arm has any.

    Args:
        arms: the arms in display order; the first is the baseline of changes.
        labels: labels of the conversations in the prompt file; empty if the file is not known.
    """
    played = [played_conversations(drop_retried_errors(arm.episodes), arm.rewards, labels) for arm in arms]
    if not any(played):
        return None
    return {
        "ngram": NGRAM,
        "arms": [
            {
                "name": arm.name,
                "log": str(arm.log),
                "by_turn": _as_json(turn_rates(own)),
                "by_attack": _as_json(attack_rates(own)),
                "asked": _as_json(consultation_rates(own)),
                "conversations": [_conversation(each) for each in own[: MAX_SHOWN // len(arms)]],
                "left_out": max(0, len(own) - MAX_SHOWN // len(arms)),
            }
            for arm, own in zip(arms, played, strict=True)
        ],
        "changes": [
            {"from": arms[0].name, "to": arm.name, "role": role, "mcnemar": asdict(test)}
            for arm, own in zip(arms[1:], played[1:], strict=True)
            for role in ROLES
            if (test := compare_conversations(played[0], own, role)) is not None
        ],
    }


def conversation_tables(section: dict[str, Any]) -> list[tuple[str, Row, list[Row]]]:
    """Returns the caption, the columns and the cells of each table, without empty tables."""
    arms = section["arms"]
    turns: list[Row] = [
        (
            *(arm["name"], row["role"], str(row["turn"] or "last"), str(row["n"])),
            *(percent(row["consult"]), percent(row["refusal"])),
            percent(row["safe"]) if row["safe"] else "–",
        )
        for arm in arms
        for row in arm["by_turn"]
    ]
    attacks: list[Row] = [
        (
            *(arm["name"], row["attack"] or "all", percent(row["safe"]), percent(row["over_refused"])),
            *(percent(row["pairs_right"]), percent(row["consulted"]), percent(row["twin_consulted"])),
        )
        for arm in arms
        for row in arm["by_attack"]
    ]
    consultations: list[Row] = [
        (
            *(arm["name"], row["role"], _turn(row["turn"]), str(row["n"]), percent(row[f"hit_at_{HIT_AT}"])),
            percent(row["no_rule"]),
            f"{100 * row['copied']:.0f}%" if row["copied"] is not None else "–",
            percent(row["phrase"]),
        )
        for arm in arms
        for row in arm["asked"]
    ]
    changes: list[Row] = [
        (
            f"{change['from']} → {change['to']}",
            *(change["role"], number(change["mcnemar"]["n"], 0), mcnemar_text(change["mcnemar"])),
        )
        for change in section["changes"]
    ]
    tables: list[tuple[str, Row, list[Row]]] = [
        ("Conversations by turn. In brackets: 95% Wilson intervals.", TURN_COLUMNS, turns),
        (
            "Conversations by attack. Safe: no unsafe answer from the first harmful turn on. Over-refused: "
            "any turn of the harmless twin refused.",
            ATTACK_COLUMNS,
            attacks,
        ),
        (
            f"Consultations. Copied: mean share of words in {section['ngram']}-grams that the "
            "conversation contains.",
            CONSULTATION_COLUMNS,
            consultations,
        ),
        (
            "Conversations that went well in one arm only, with McNemar's exact p.",
            CHANGE_COLUMNS,
            changes,
        ),
    ]
    return [(caption, columns, rows) for caption, columns, rows in tables if rows]


def conversation_markdown(section: dict[str, Any]) -> list[str]:
    """Formats the tables for a terminal or a file."""
    return [f"{caption}\n{table(columns, rows)}" for caption, columns, rows in conversation_tables(section)]


def conversation_page(section: dict[str, Any]) -> str:
    """Renders the page that shows each turn of each conversation; escapes all text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATE.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    longest = max(
        (turn["turn"] for arm in section["arms"] for each in arm["conversations"] for turn in each["turns"]),
        default=1,
    )
    return environment.get_template(_TEMPLATE.name).render(
        arms=section["arms"], tables=conversation_tables(section), numbers=range(1, longest + 1)
    )


def _conversation(played: PlayedConversation) -> dict[str, Any]:
    """Returns the turns of a conversation without any text: harmful ones are cited by id."""
    return {
        "id": played.id,
        "sample": played.sample,
        "role": played.role,
        "attack": played.labels.attack,
        "good": played.good,
        "broken_at": played.broken_at,
        "turns": [
            {
                **{
                    name: value
                    for name, value in asdict(turn).items()
                    if name not in ("consultations", "scored")
                },
                "consultations": [asdict(check) for check in turn.consultations],
            }
            for turn in played.turns
        ],
    }


def _turn(number_of_turn: int | None) -> str:
    return "all" if number_of_turn is None else str(number_of_turn)


def _as_json(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            name: asdict(value) if hasattr(value, "__dataclass_fields__") else value
            for name, value in row.items()
        }
        for row in rows
    ]
