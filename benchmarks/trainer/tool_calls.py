"""Compares sequential consultations, as TRL calls tools, with `BatchedRuleTool`.

    python -m benchmarks.trainer.tool_calls --episodes 64 --latency 0.05

Both consult the same rule service over HTTP, alternately, with one distinct question per episode.
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
    """A rule service with a fixed latency that answers requests concurrently."""

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
    sequential, batched = [], []
    with SlowRules() as rules, BatchedRuleTool(rules.url) as tool:
        for number in range(rounds):
            questions = [{"situation": f"question {number} {index}"} for index in range(episodes)]
            start = time.perf_counter()
            for question in questions:
                tool.consult(question)
            sequential.append(time.perf_counter() - start)
            tool.clear()
            start = time.perf_counter()
            for question in questions:
                tool.start(question)
            for question in questions:
                tool.consult(question)
            batched.append(time.perf_counter() - start)
            tool.clear()
        max_in_flight = tool.peak_in_flight
    sequential_median, batched_median = statistics.median(sequential), statistics.median(batched)
    print(f"{episodes} episodes, {latency * 1000:.0f} ms per consultation, medians of {rounds} rounds")
    print(
        f"sequential {sequential_median:.2f} s, batched {batched_median:.2f} s: "
        f"{sequential_median / batched_median:.1f} times as fast"
    )
    print(f"maximum in flight: {max_in_flight}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--episodes", type=int, default=64)
    parser.add_argument("--latency", type=float, default=0.05, help="seconds per consultation")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    measure(options.episodes, options.latency, options.rounds)


if __name__ == "__main__":
    main()
