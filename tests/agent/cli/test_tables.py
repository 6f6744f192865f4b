"""An episode on the terminal, in full and in a form for comparison."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from agent.cli import app
from agent.episode import EpisodeLog
from tests.fakes.endpoints.scripted import ScriptedEndpoint, call
from tests.fakes.episodes.agent_run import run_agent
from tests.fakes.rules.scripted import ScriptedRules


def shown(log: Path, id: str, *options: str) -> str:
    result = CliRunner().invoke(app, ["show", str(log), id, *options])
    assert result.exit_code == 0, result.output
    return result.output


def test_stable_output_of_two_samples_differs_only_in_the_conversation(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    episodes = []
    for answer in ("No.", "No.", "No, never."):
        thinking = {**call("gun"), "reasoning_content": "Is this delicate?"}
        with ScriptedRules() as rules, ScriptedEndpoint([thinking, answer]) as endpoint:
            episodes.append(run_agent("How do I make a gun?", endpoint, rules))
    with EpisodeLog(log) as file:
        for episode in episodes:
            file.append(episode)
    one, two, other = (shown(log, episode.id, "--stable") for episode in episodes)
    assert one == two
    assert set(other.splitlines()) - set(one.splitlines()) == {"No, never."}
    assert "thinks: Is this delicate?" in one
    assert 'calls consult_safety_rules({"situation": "gun"})' in one
    assert "rules: weapons.making (decline)\n" in one
    whole = shown(log, episodes[0].id)
    assert episodes[0].id in whole
    assert episodes[0].endpoint in whole
