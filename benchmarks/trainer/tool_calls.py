"""How long a batch waits for its consultations: one by one, as TRL calls tools, and through the desk.

    python -m benchmarks.trainer.tool_calls --episodes 64 --latency 0.05

Both ask the same rule service over real HTTP, in turns, with as many different questions as episodes.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time

from mcp.server import MCPServer
from mcp.types import CallToolResult, TextContent

from tests.fakes.rules.scripted import ScriptedRules, rules_found
from trainer.stages.online import BatchedRuleTool


class SlowRules(ScriptedRules):
    """A rule service that takes its time, and answers many at once meanwhile."""

    latency = 0.0

    def _server(self) -> MCPServer:
        server = super()._server()
        latency = self.latency
        server.remove_tool("consult_safety_rules")

        @server.tool()
        async def consult_safety_rules(situation: str) -> CallToolResult:
            """Consult the rules about a situation."""
            await asyncio.sleep(latency)
            return CallToolResult(
                content=[TextContent(type="text", text="A rule")], structured_content=rules_found()
            )

        return server


def measure(episodes: int, latency: float, rounds: int) -> None:
    SlowRules.latency = latency
    one_by_one, together = [], []
    with SlowRules() as rules, BatchedRuleTool(rules.url) as desk:
        for turn in range(rounds):
            questions = [{"situation": f"question {turn} {number}"} for number in range(episodes)]
            started = time.perf_counter()
            for question in questions:
                desk.consult(question)
            one_by_one.append(time.perf_counter() - started)
            desk.forget()
            started = time.perf_counter()
            for question in questions:
                desk.begin(question)
            for question in questions:
                desk.consult(question)
            together.append(time.perf_counter() - started)
            desk.forget()
        most = desk.in_flight_most
    serial, parallel = statistics.median(one_by_one), statistics.median(together)
    print(f"{episodes} episodes, {latency * 1000:.0f} ms a consultation, medians of {rounds} rounds")
    print(f"one by one {serial:.2f} s, together {parallel:.2f} s: {serial / parallel:.1f} times as fast")
    print(f"most in flight: {most}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--episodes", type=int, default=64)
    parser.add_argument("--latency", type=float, default=0.05, help="seconds a consultation")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    measure(options.episodes, options.latency, options.rounds)


if __name__ == "__main__":
    main()
