"""Runs `ascl-rules query`: prints what a model receives, and for the author what it does not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import typer

from rule_server.cli.options import print_json
from rule_server.cli.terminal import print_table, print_text

if TYPE_CHECKING:
    from rule_server.schemas import ConsultRequest, ConsultResponse, NearRule
    from rule_server.service.rule_service import RuleService

NEAR_MISSES = 3
"""Maximum number of unreturned rules shown on each side of the threshold."""


def answer_query(service: RuleService, request: ConsultRequest, *, as_json: bool) -> None:
    """Prints the response to standard output, and the scores to standard error."""
    response, nearest = asyncio.run(_consult(service, request))
    returned = {rule.id for rule in response.rules}
    threshold = service.threshold
    others = [rule for rule in nearest if rule.id not in returned]
    left_out = [rule for rule in others if rule.score >= threshold.value][:NEAR_MISSES]
    missed = left_out + [rule for rule in others if rule.score < threshold.value][:NEAR_MISSES]
    carried = carried_rule(response, request.top_k or service.settings.default_top_k)
    if as_json:
        more: dict[str, Any] = {
            "near_misses": [rule.model_dump() for rule in missed],
            "carried": carried,
            "threshold_origin": threshold.origin,
        }
        print_json(response.model_dump() | more)
        return
    print_text(response.as_text())
    typer.echo(err=True)
    print_text(f"threshold {threshold.value:.3f} ({threshold.note}); scores: ", err=True)
    rows = [("rule", "score", "outcome")]
    for rule in response.rules:
        outcome = "returned" if rule.id != carried else "returned with every answer of its category"
        rows.append((rule.id, f"{rule.score:.3f}", outcome))
    for near in missed:
        place = "under the threshold" if near.score < threshold.value else "others rank before it"
        rows.append((near.id, f"{near.score:.3f}", f"not returned: {place}"))
    print_table(rows, cut=(0,), err=True)
    if carried is not None:
        text = (
            f"{carried} comes with everything that this category returns: it is the nearest rule with the "
            "stance `answer`, added regardless of its score"
        )
        print_text(text, err=True)


async def _consult(service: RuleService, request: ConsultRequest) -> tuple[ConsultResponse, list[NearRule]]:
    """Returns the response, and the nearest rules regardless of the threshold."""
    async with service.running():
        await service.warm()
        response = await service.consult(request)
        nearest = await service.nearest(request.model_copy(update={"top_k": 10}))
    return response, nearest.rules


def carried_rule(response: ConsultResponse, top_k: int) -> str | None:
    """Returns the id of the `answer` rule that was added regardless of its score; None if there is none."""
    from rule_server.retrieval.index import RETURN_MARGIN

    if len(response.rules) < 2:
        return None
    first, last = response.rules[0], response.rules[-1]
    added = len(response.rules) > top_k or last.score < response.threshold - RETURN_MARGIN
    return last.id if added and last.stance == "answer" and last.category == first.category else None
