"""A whole run on small models of two families, with episodes that think, consult and answer."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from agent.episode import Episode
from evaluation.scorers import score_log, write_rewards
from tests.fakes.episodes.log import make_episode, write_log
from tests.fakes.models.tiny_gpt_oss import save_tiny_gpt_oss
from tests.fakes.models.tiny_qwen3 import save_tiny_qwen3
from trainer.cli import app
from trainer.groups.parquet import read_groups
from trainer.reports.episode_check import check_episode
from trainer.stages.logged.trainer import LoggedIFPOTrainer

PARAMETERS = {"type": "object", "properties": {"situation": {"type": "string"}}, "required": ["situation"]}
FUNCTION = {"name": "consult_safety_rules", "description": "Looks up rules.", "parameters": PARAMETERS}
TOOLS = [{"type": "function", "function": FUNCTION}]
REFUSAL = "I can't help with that."
MODELS: dict[str, Callable[[Path], Path]] = {"qwen3": save_tiny_qwen3, "gpt-oss": save_tiny_gpt_oss}


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return MODELS[request.param](tmp_path_factory.mktemp(request.param))


def episodes() -> list[Episode]:
    """Three groups of consulting episodes with thoughts, longer than the direct ones, some with a history."""
    logged = []
    for number, kind in enumerate(("harmful", "benign_plain", "benign_sensitive")):
        for sample in range(6):
            answer = REFUSAL if sample % 3 == 0 else f"Here is how, in {sample} steps."
            episode = make_episode(f"p{number}", kind, answer, sample=sample, consult=sample < 4, tools=TOOLS)
            episode.messages[1]["reasoning_content"] = f"Is request {number} delicate?"
            if sample < 4:
                episode.messages[-1]["reasoning_content"] = "The rule allows a part of it. " * sample
            if number == 1:
                earlier = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
                episode = episode.model_copy(update={"messages": [*earlier, *episode.messages]})
            logged.append(episode)
    return logged


def prepare(folder: Path, logged: list[Episode]) -> Path:
    log = write_log(folder / "log.jsonl", logged)
    write_rewards(folder / "rewards.jsonl", score_log(logged))
    groups = folder / "groups.parquet"
    paths = [str(log), str(folder / "rewards.jsonl"), "--out", str(groups)]
    result = CliRunner().invoke(app, ["prepare", *paths])
    assert result.exit_code == 0, result.output
    return groups


def train(model: Path, groups: Path, out: Path, *options: str) -> tuple[int, str]:
    named = ["--model", str(model), "--groups", str(groups), "--out", str(out), "--lora_layers", "2"]
    sizes = ["--per_device_train_batch_size", "3", "--gradient_accumulation_steps", "2"]
    result = CliRunner().invoke(app, ["logged", *named, *sizes, *options])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join(result.output.split())


def sums_by_mode(columns: dict[str, list[Any]]) -> dict[str, float]:
    sums: Counter[str] = Counter()
    for mode, advantage in zip(columns["mode"], columns["advantage_ifpo"], strict=True):
        sums[mode] += advantage
    return dict(sums)


@pytest.fixture
def trained_tokens(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[int], list[int]]]:
    """The ids of every row that a loss is computed of, and of those of them that carry it."""
    seen: list[tuple[list[int], list[int]]] = []
    compute_loss = LoggedIFPOTrainer._compute_loss

    def record(self: Any, model: Any, inputs: Any) -> Any:
        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
        shown = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1).bool()
        in_loss = torch.cat([inputs["prompt_mask"] * 0, inputs["completion_mask"] * inputs["tool_mask"]], 1)
        seen.extend(
            (row[here].tolist(), row[loss.bool()].tolist())
            for row, here, loss in zip(ids, shown, in_loss, strict=True)
        )
        return compute_loss(self, model, inputs)

    monkeypatch.setattr(LoggedIFPOTrainer, "_compute_loss", record)
    return seen


def test_advantages_of_each_mode_survive_selection_and_check_shows_what_is_trained(
    model: Path, tmp_path: Path, trained_tokens: list[tuple[list[int], list[int]]]
) -> None:
    logged = episodes()
    groups = prepare(tmp_path, logged)
    code, output = train(model, groups, tmp_path / "out", "--max_length", "4000")
    assert code == 0, output
    record = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))
    columns, _ = read_groups(groups)
    assert set(record["data"]["left_out"]) <= {"no advantage"}
    assert record["data"]["advantage_sums"] == pytest.approx(sums_by_mode(columns), abs=1e-6)
    assert sum(record["data"]["advantage_sums"].values()) == pytest.approx(0, abs=1e-6)

    trained = {tuple(ids): loss for ids, loss in trained_tokens if loss}
    with_advantage = [id for id, a in zip(columns["episode_id"], columns["advantage_ifpo"], strict=True) if a]
    assert len(with_advantage) == record["data"]["episodes"] == len(trained)
    for id in with_advantage:
        tokens = check_episode(groups, str(model), id).tokens
        assert trained[tuple(token.id for token in tokens)] == [token.id for token in tokens if token.wrote]
        written = "".join(token.text for token in tokens if token.wrote)
        episode = next(episode for episode in logged if episode.id == id)
        assert f"Is request {id[1]} delicate?" in written
        assert ("consult_safety_rules" in written) == (episode.mode == "consult")
        assert str(episode.answer) in written
        assert "A rule" not in written
        assert "Hello." not in written


def test_sums_of_the_modes_cancel_when_episodes_are_left_out(model: Path, tmp_path: Path) -> None:
    groups = prepare(tmp_path, episodes())
    ids = read_groups(groups)[0]["episode_id"]
    lengths = sorted(len(check_episode(groups, str(model), id).tokens) for id in ids)
    limit = lengths[14]
    left_out = sum(length > limit for length in lengths)
    code, output = train(model, groups, tmp_path / "out", "--max_length", str(limit))
    assert code == 0, output
    assert f"warning: {left_out} of 12 consult episodes are left out" in output
    assert f"--max_length {lengths[-1]} keeps all" in output
    data = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))["data"]
    assert data["left_out_by_mode"] == {f"longer than {limit} tokens": {"consult": left_out}}
    assert sum(data["advantage_sums"].values()) == pytest.approx(0, abs=1e-6)
    code, output = train(model, groups, tmp_path / "refused", "--max_length", str(lengths[8]))
    assert code == 1
    assert "so training on the rest would distort the decision to consult: raise --max_length" in output


def test_what_prepare_left_out_counts_when_a_run_decides_whether_to_train(
    model: Path, tmp_path: Path
) -> None:
    logged = episodes()
    unscored = [e.id for e in logged if e.mode == "consult"][:7]
    log = write_log(tmp_path / "log.jsonl", logged)
    write_rewards(tmp_path / "rewards.jsonl", [r for r in score_log(logged) if r.episode_id not in unscored])
    groups = tmp_path / "groups.parquet"
    paths = [str(log), str(tmp_path / "rewards.jsonl"), "--out", str(groups)]
    prepared = CliRunner().invoke(app, ["prepare", *paths])
    assert prepared.exit_code == 0, prepared.output
    code, output = train(model, groups, tmp_path / "out", "--max_length", "4000")
    assert code == 1
    expected = "7 of 12 consult episodes are left out (not scored: 7), but 0 of 6 direct ones"
    assert expected in output
    assert expected in " ".join(prepared.output.split())
    assert "score the whole log with `ascl-eval score`" in output
