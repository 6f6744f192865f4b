"""The prompts on which a run is watched: of a file, those not trained on, asked as the log asked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from evaluation.prompts import PromptError, load_prompts
from trainer.errors import TrainingError
from trainer.stages.logged.guards import Floor
from trainer.tokens import RenderingError, call_opening

if TYPE_CHECKING:
    from trainer.stages.logged.config import LoggedArguments


def floor_of(arguments: LoggedArguments, tokenizer: Any, columns: dict[str, list[Any]]) -> Floor:
    """What to watch, with the system text and the tools of the log's first episode.

    Raises:
        TrainingError: the prompts cannot be read or shown, or none that is harmful is left.
    """
    try:
        prompts = load_prompts(str(arguments.floor_prompts))
    except PromptError as error:
        raise TrainingError(f"floor_prompts: {error}") from None
    asked = [json.loads(messages) for messages in columns["messages"]]
    trained = {message["content"] for messages in asked for message in messages if message["role"] == "user"}
    before = [message for message in asked[0][:1] if message["role"] in ("system", "developer")]
    tools = json.loads(columns["tools"][0])
    unseen = [prompt for prompt in prompts if prompt.prompt not in trained]
    if not any(prompt.kind == "harmful" for prompt in unseen):
        raise TrainingError(
            f"{arguments.floor_prompts} holds no harmful prompt that the run does not train on, so no floor "
            "can be kept: name other prompts"
        )
    try:
        openings = [
            call_opening(tokenizer, [*before, {"role": "user", "content": prompt.prompt}], tools)
            for prompt in unseen
        ]
    except RenderingError as cause:
        raise TrainingError(f"consulting cannot be watched: {cause}") from None
    return Floor(
        kinds=[prompt.kind for prompt in unseen],
        openings=openings,
        consult=arguments.floor_consult,
        safe=arguments.floor_safe,
        every=arguments.floor_every,
        rollback=arguments.on_floor == "rollback",
        reply_tokens=arguments.floor_reply_tokens,
    )
