"""Turns the demonstrations written by hand into episodes, with a rule service that returns one rule per call.

    ascl-rules serve --default-top-k 1 --no-watch
    python -m trainer.stages.sft.demonstrations.build --rules http://127.0.0.1:8808/mcp

Each line of `written.jsonl` holds a prompt, its kind and category, the situation to consult about (null to
answer directly) and the answer. The real agent runs them against a rule service and reads only the model's
replies from the file, so the episodes contain the real system prompt, tool and rules. Run it again when
`written.jsonl`, the system prompt or the tool description changes. When only the rules change, the episodes
remain valid: each records the digest of its rulebook.
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
from agent.tools import RULE_TOOL
from evaluation.runtime import write_atomic

FOLDER = Path(__file__).parent
WRITTEN = FOLDER / "written.jsonl"


class WrittenDemonstration(BaseModel):
    """One demonstration written by hand."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str
    kind: str
    category: str | None
    """Category of the rulebook; None for everyday prompts."""
    situation: str | None
    """Situation to consult about; None for a direct answer."""
    answer: str


class ScriptedEndpoint(Endpoint):
    """Endpoint that replies with a demonstration: the call, if there is one, then the answer."""

    def __init__(self, written: WrittenDemonstration) -> None:
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
        call = {"id": "call_0", "type": "function", "function": {"name": RULE_TOOL, "arguments": arguments}}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        return Reply(message, "tool_calls", usage=None, model=self.model, attempts=1)


def read_written_demonstrations(path: Path = WRITTEN) -> list[WrittenDemonstration]:
    """Reads all lines of a file.

    Raises:
        pydantic.ValidationError: a line is invalid.
    """
    return [
        WrittenDemonstration.model_validate_json(line)
        for line in path.read_text(encoding="utf-8").splitlines()
    ]


async def record_episodes(written: list[WrittenDemonstration], rules_url: str) -> list[Episode]:
    """Runs every demonstration through the agent, in order.

    Raises:
        AgentError: the rule service does not answer.
    """
    episodes = []
    async with RulesClient(rules_url) as rules:
        for number, line in enumerate(written):
            agent = Agent(
                ScriptedEndpoint(line), rules, on_rules_error="fail", policy_version="written-by-hand"
            )
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
    written = read_written_demonstrations()
    try:
        episodes = asyncio.run(record_episodes(written, options.rules))
    except AgentError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    write_atomic(options.out, (episode.model_dump_json() for episode in episodes), private=False)
    missed = [
        episode.prompt
        for episode in episodes
        if episode.kind == "harmful" and any(not consultation.rules for consultation in episode.consultations)
    ]
    print(f"{len(episodes)} episodes in {options.out}; harmful prompts without a rule: {missed or 'none'}")


if __name__ == "__main__":
    main()
