"""The probability of consulting in stratified groups, for models that think first or call in another form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agent.episode import Episode
from evaluation.scorers import score_log, write_rewards
from tests.fakes.episodes.log import make_episode, write_log
from tests.fakes.models.tiny_qwen3 import save_tiny_qwen3
from trainer.cli import app
from trainer.stages.logged.credit import disagreement

REFUSAL = "I can't help with that."
FAST = ["--per_device_train_batch_size", "4", "--lora_layers", "1", "--max_length", "2000"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_qwen3(tmp_path_factory.mktemp("model"))


def stratified(groups: int, thoughts: str | None) -> list[Episode]:
    """Groups of four free episodes, three of which consult, and one forced into each mode."""
    episodes = []
    for number in range(groups):
        name = f"p{number}"
        for sample in range(6):
            more: dict[str, Any] = {}
            if sample >= 4:
                more = {"mode_forced": True, "mode_method": ("agent_call", "resample")[sample - 4]}
            consult = sample < 3 or sample == 4
            answer = REFUSAL if sample % 2 else "Here is how."
            episode = make_episode(name, "benign_plain", answer, sample=sample, consult=consult, **more)
            if more.get("mode_method") == "agent_call":
                episode = episode.model_copy(update={"turns": episode.turns[1:]})
            elif thoughts is not None:
                episode.messages[1]["reasoning_content"] = thoughts
            episodes.append(episode)
    return episodes


def train(folder: Path, model: Path, episodes: list[Episode], *options: str) -> tuple[int, str, Any]:
    """Prepares a log and trains on it. Returns the exit code, the output and the record."""
    log = write_log(folder / "log.jsonl", episodes)
    write_rewards(folder / "rewards.jsonl", score_log(episodes))
    paths = [str(log), str(folder / "rewards.jsonl"), "--out", str(folder / "groups.parquet")]
    prepared = CliRunner().invoke(app, ["prepare", *paths, "--keep-forced", "--overwrite"])
    assert prepared.exit_code == 0, prepared.output
    named = ["--model", str(model), "--groups", str(folder / "groups.parquet"), "--out", str(folder / "out")]
    result = CliRunner().invoke(app, ["logged", *named, *FAST, *options])
    record = folder / "out" / "run.json"
    return result.exit_code, result.output, json.loads(record.read_text()) if record.exists() else None


def test_a_model_that_thinks_first_is_weighted_by_the_rate_of_its_free_episodes(
    model: Path, tmp_path: Path
) -> None:
    code, output, record = train(tmp_path, model, stratified(2, "Is it delicate?"))
    assert code == 0, output
    assert "8 of 8 free episodes think or write before they decide" in output
    assert record["stratified"]["mode_probability"] == "rate"
    assert record["stratified"]["mean_consult_probability"] == pytest.approx(3.5 / 5)


def test_probabilities_that_do_not_fit_the_free_episodes_are_refused_with_the_remedy(
    model: Path, tmp_path: Path
) -> None:
    code, output, _ = train(tmp_path, model, stratified(2, None))
    assert code == 1
    message = " ".join(output.split())
    assert "the mean probability of consulting is 0.000 by the tokens that open a call" in message
    assert "but 6 of 8 free episodes consulted (0.75)" in message
    assert "set mode_probability to 'rate'" in message
    code, output, record = train(tmp_path, model, stratified(2, None), "--mode_probability", "rate")
    assert code == 0, output
    assert record["stratified"]["mode_probability"] == "rate"


def test_without_free_episodes_no_rate_can_be_measured(model: Path, tmp_path: Path) -> None:
    episodes = [episode for episode in stratified(1, None) if episode.mode_forced]
    code, output, _ = train(tmp_path, model, episodes, "--mode_probability", "rate")
    assert code == 1
    assert "all episodes have a forced mode: sample again with mode shares" in " ".join(output.split())


def test_a_floor_on_the_consult_rate_is_refused_for_a_model_that_thinks_first(
    model: Path, tmp_path: Path
) -> None:
    floor = ["--floor_prompts", "builtin:held_out", "--floor_consult", "0.5"]
    code, output, _ = train(tmp_path, model, stratified(2, "Is it delicate?"), *floor)
    assert code == 1
    assert "remove it, and train with `ascl-train loop`" in " ".join(output.split())


@pytest.mark.parametrize(
    ("probability", "observed", "episodes", "agrees"),
    [
        (0.75, 6, 8, True),
        (0.0, 0, 8, True),
        (0.0, 2, 2, True),  # too few to tell
        (0.0, 3, 4, False),
        (1.0, 0, 8, False),
        (0.02, 60, 400, False),  # seven times as many
        (0.5, 560, 1000, True),  # larger than chance, but small
        (0.98, 200, 200, True),
    ],
)
def test_measured_probabilities_are_compared_with_the_free_episodes(
    probability: float, observed: int, episodes: int, agrees: bool
) -> None:
    modes = ["consult"] * observed + ["direct"] * (episodes - observed)
    problem = disagreement({"g": probability}, modes, [False] * episodes, ["g"] * episodes)
    assert (problem is None) == agrees
    assert disagreement({"g": probability}, modes, [True] * episodes, ["g"] * episodes) is None
