"""Turn what we wrote into episodes, against a rule service that returns one rule a call.

    ascl-rules serve --default-top-k 1 --no-watch
    python -m trainer.stages.sft.demonstrations.build --rules http://127.0.0.1:8808/mcp

Each line of `written.jsonl` holds a prompt, its kind and category, the situation to consult about (null to
answer directly) and the answer. They are played through the real agent against a running rule service, only
the model's part is read from the file: system text, tool and rules stand in the episodes as they do in use.
Run it again after `written.jsonl`, the system text or the tool description has changed. When only the rules
have changed the episodes stay valid: they are data, and each names the rulebook digest that it was made with.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from agent import Agent, Endpoint, Episode, RulesClient
from agent.endpoint import Reply
from agent.errors import AgentError

FOLDER = Path(__file__).parent
WRITTEN = FOLDER / "written.jsonl"
TOOL = "consult_safety_rules"


class Written(BaseModel):
    """One demonstration as a person wrote it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str
    kind: str
    category: str | None
    """The category of the rulebook that the prompt is about; None for everyday prompts."""
    situation: str | None
    """What to consult about; None for an answer without a consultation."""
    answer: str


class Script(Endpoint):
    """An endpoint whose replies were written beforehand: the call, if there is one, then the answer."""

    def __init__(self, written: Written) -> None:
        super().__init__("http://127.0.0.1/written", "written-by-hand")
        self._written = written

    async def complete(
        self,
        messages: list[dict[str, Any]],
        tools: list[dict[str, Any]],
        sampling: Mapping[str, Any],
        on_delta: Any = None,
        on_retry: Any = None,
    ) -> Reply:
        written = self._written
        if written.situation is None or messages[-1]["role"] == "tool":
            message: dict[str, Any] = {"role": "assistant", "content": written.answer}
            return Reply(message, "stop", usage=None, model=self.model, attempts=1)
        arguments = json.dumps({"situation": written.situation}, ensure_ascii=False)
        call = {"id": "call_0", "type": "function", "function": {"name": TOOL, "arguments": arguments}}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        return Reply(message, "tool_calls", usage=None, model=self.model, attempts=1)


def read_written(path: Path = WRITTEN) -> list[Written]:
    """Every line of the file, in order. Raises pydantic's ValidationError (a ValueError) for a bad line."""
    return [Written.model_validate_json(line) for line in path.read_text(encoding="utf-8").splitlines()]


async def play(written: list[Written], rules_url: str) -> list[Episode]:
    """An episode for each, in order. Raises AgentError when the rule service does not answer."""
    episodes = []
    async with RulesClient(rules_url) as rules:
        for number, line in enumerate(written):
            agent = Agent(Script(line), rules, on_rules_error="fail", policy_version="written-by-hand")
            episode = await agent.run(line.prompt, prompt_id=f"demonstration-{number:03}", kind=line.kind)
            if episode.error is not None:
                raise AgentError(episode.error.message)
            episodes.append(episode.model_copy(update={"id": f"demonstration-{number:03}"}))
    return episodes


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rules", default="http://127.0.0.1:8808/mcp", help="address of the rule service")
    parser.add_argument("--out", type=Path, default=FOLDER / "demonstrations.jsonl", help="file to write")
    options = parser.parse_args()
    written = read_written()
    try:
        episodes = asyncio.run(play(written, options.rules))
    except AgentError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    options.out.write_text("".join(f"{e.model_dump_json()}\n" for e in episodes), encoding="utf-8")
    missed = [
        episode.prompt
        for episode in episodes
        if episode.kind == "harmful" and any(not consultation.rules for consultation in episode.consultations)
    ]
    print(
        f"{len(episodes)} episodes in {options.out}; harmful prompts that found no rule: {missed or 'none'}"
    )


if __name__ == "__main__":
    main()
