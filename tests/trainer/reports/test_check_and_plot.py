"""`ascl-train check` and `plot`: one episode as the trainer sees it, and runs side by side."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from evaluation.scorers import score_log, write_rewards
from tests.fakes.episodes.log import make_episode, write_log
from tests.fakes.models.tiny_llama import tiny_tokenizer
from trainer.cli import app
from trainer.reports.run_history import statistics_metrics
from trainer.stages.online.batch_metrics import batch_metrics

REFUSAL = "I can't help with that."


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny_tokenizer().save_pretrained(folder)
    (folder / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    return folder


@pytest.fixture
def groups(tmp_path: Path) -> Path:
    episodes = [
        make_episode("a", "benign_plain", REFUSAL, sample=0, consult=True),
        make_episode("a", "benign_plain", REFUSAL, sample=1, consult=True),
        make_episode("a", "benign_plain", "Here is how.", sample=2),
        make_episode("b", "harmful", REFUSAL, sample=0, consult=True),
        make_episode("b", "harmful", "Here is how.", sample=1),
    ]
    log = write_log(tmp_path / "log.jsonl", episodes)
    write_rewards(tmp_path / "rewards.jsonl", score_log(episodes))
    code, *_ = run("prepare", log, tmp_path / "rewards.jsonl", "--out", tmp_path / "groups.parquet")
    assert code == 0
    return tmp_path / "groups.parquet"


def test_check_prints_segments_by_author_and_the_advantages_of_the_group(
    groups: Path, tokenizer: Path
) -> None:
    code, stdout, stderr = run("check", groups, "--model", tokenizer, "--episode", "a-0")
    assert code == 0, stderr
    titles = re.findall(r"── (\w+)", stdout)
    assert titles == ["prompt", "written", "tool", "written"]  # call, rules read, answer
    assert "rendered from text" in stdout
    assert "[a.b] A rule" in stdout
    assert "a-2" in stdout  # its group
    assert "b-0" not in stdout


def test_the_json_of_check_holds_the_mask_and_log_probability_of_every_token(
    tokenizer: Path, tmp_path: Path
) -> None:
    tiny = tiny_tokenizer()
    prompt, reply = tiny.encode("Hello"), tiny.encode("Here is how.")
    logged = []
    for sample, answer in enumerate([REFUSAL, "Here is how."]):
        episode = make_episode("a", answer=answer, sample=sample, consult=False)
        turn = {"prompt_token_ids": prompt, "token_ids": reply, "logprobs": [-0.5] * len(reply)}
        logged.append(episode.model_copy(update={"turns": [episode.turns[0].model_copy(update=turn)]}))
    log = write_log(tmp_path / "log.jsonl", logged)
    write_rewards(tmp_path / "rewards.jsonl", score_log(logged))
    run("prepare", log, tmp_path / "rewards.jsonl", "--out", tmp_path / "groups.parquet")
    code, stdout, _ = run("check", tmp_path / "groups.parquet", "--model", tokenizer, "--json")
    assert code == 0
    checked = json.loads(stdout)
    assert checked["logged_tokens"] is True
    assert [token["id"] for token in checked["tokens"]] == prompt + reply
    assert [token["wrote"] for token in checked["tokens"]] == [False] * len(prompt) + [True] * len(reply)
    assert [token["logprob"] for token in checked["tokens"]] == [None] * len(prompt) + [-0.5] * len(reply)
    assert [member["advantage_ifpo"] < 0 for member in checked["group"]] == [True, False]


def test_the_error_names_an_unknown_episode_and_some_existing_ones(groups: Path, tokenizer: Path) -> None:
    code, _, stderr = run("check", groups, "--model", tokenizer, "--episode", "z")
    assert code == 1
    assert "has no episode 'z'; its first episodes are a-0" in stderr


def record(folder: Path, stage: str, steps: list[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"stage": stage, "steps": steps}), encoding="utf-8")
    return folder


def online_steps(gap: float) -> list[dict[str, Any]]:
    return [
        {
            "step": step,
            "loss": 0.0,
            "ifpo/consult_rate/harmful": 0.9,
            "ifpo/consult_rate/benign_plain": 0.9 - gap * step / 20,
            "ifpo/reward/consult": 0.5,
            "ifpo/reward/direct": 0.6,
            "ifpo/effective_share": 0.8,
            "kl": 0.01 * step,
            "entropy": 1.0,
        }
        for step in range(1, 21)
    ]


def test_runs_of_a_stage_and_of_a_loop_are_plotted_side_by_side(groups: Path, tmp_path: Path) -> None:
    ifpo = record(tmp_path / "ifpo", "online", online_steps(0.6))
    loop = tmp_path / "loop"
    for number in ("001", "002"):
        statistics = json.loads(run("stats", groups, "--json")[1])
        trained = record(loop / "rounds" / number / "trained", "logged", [{"step": 1, "logged/kl": 0.02}])
        (trained.parent / "statistics.json").write_text(json.dumps(statistics), encoding="utf-8")
    code, stdout, stderr = run("plot", ifpo, loop, "--out", tmp_path / "compared")
    assert code == 0, stderr
    assert "loop recorded nothing of: entropy" in stdout
    assert (tmp_path / "compared" / "runs.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "compared" / "runs.html").read_text(encoding="utf-8")
    assert "loop, 2 rounds" in page
    assert "0.870 → 0.300" in page  # harmless consult rate of the first run
    assert not re.search(r'(src|href)="(?!data:)', page)  # the page fetches no resource
    comparison = json.loads((tmp_path / "compared" / "runs.json").read_text(encoding="utf-8"))
    assert comparison["runs"][1]["points"][0][1]["ifpo/consult_rate/harmful"] == 0.5


def test_the_state_before_training_is_never_that_of_another_file(
    groups: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run of an earlier version names its groups by a relative path, where another file now is."""
    folder = record(
        tmp_path / "ifpo", "logged", [{"step": 1, "logged/kl": 0.02}, {"step": 2, "logged/kl": 0.03}]
    )
    old = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    monkeypatch.chdir(groups.parent)
    for digest, drawn in (("0" * 64, False), (hashlib.sha256(groups.read_bytes()).hexdigest(), True)):
        old |= {"arguments": {"groups": groups.name}, "data": {"groups_sha256": digest}}
        (folder / "run.json").write_text(json.dumps(old), encoding="utf-8")
        options = ("--out", tmp_path / "compared", "--overwrite", "--json")
        [run_plotted] = json.loads(run("plot", folder, *options)[1])["runs"]
        assert (run_plotted["points"][0][0] == 0.0) is drawn


def test_a_run_that_kept_the_statistics_needs_no_groups_file(groups: Path, tmp_path: Path) -> None:
    statistics = json.loads(run("stats", groups, "--json")[1])
    folder = record(tmp_path / "ifpo", "logged", [{"step": 1, "logged/kl": 0.02}])
    kept = {"stage": "logged", "steps": [{"step": 1, "logged/kl": 0.02}], "groups": statistics}
    (folder / "run.json").write_text(json.dumps(kept), encoding="utf-8")
    [plotted] = json.loads(run("plot", folder, "--out", tmp_path / "compared", "--json")[1])["runs"]
    assert plotted["points"][0][1]["ifpo/consult_rate/harmful"] == 0.5


def test_plotted_rewards_by_mode_count_forced_episodes_but_consult_rates_do_not() -> None:
    kind = {"episodes": 4, "consult": {"share": 1.0, "hits": 2, "n": 2}, "consulting": 3, "reward": 0.5}
    sure = kind | {"reward_consult": 2 / 3, "reward_direct": 0.0}
    unsure = kind | {"episodes": 1, "consulting": 1, "reward_consult": 0.0, "reward_direct": None}
    statistics = {"kinds": {"harmful": sure, "benign_plain": unsure}, "groups": 2, "one_mode_groups": 0}
    statistics |= {"equal_reward_groups": 0, "largest_weight": 1.0, "effective_share": 1.0}
    metrics = statistics_metrics(statistics)
    assert metrics["ifpo/consult_rate/harmful"] == 1.0
    assert metrics["ifpo/reward/consult"] == pytest.approx(2 / 4)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    code, _, stderr = run("plot", tmp_path, "--out", tmp_path / "compared")
    assert code == 1
    assert "contains no run" in stderr


def test_batch_metrics_equal_those_counted_by_hand() -> None:
    metrics = batch_metrics(
        ["harmful", "harmful", "benign_plain", "benign_plain", "benign_plain"],
        [True, False, True, True, False],
        [1.0, 0.0, 0.5, 0.5, np.nan],
        [0, 0, 1, 1, 1],
        [1.0, 1.0, 1.0, 1.0, 9.0],
    )
    assert metrics == {
        "ifpo/consult_rate": 0.6,
        "ifpo/unscored": 0.2,
        "ifpo/consult_rate/harmful": 0.5,
        "ifpo/reward/harmful": 0.5,
        "ifpo/consult_rate/benign_plain": pytest.approx(2 / 3),
        "ifpo/reward/benign_plain": 0.5,
        "ifpo/reward/consult": pytest.approx(2 / 3),
        "ifpo/reward/direct": 0.0,
        "ifpo/one_mode_groups": 0.5,
        "ifpo/equal_reward_groups": 0.5,
        "ifpo/largest_weight": 1.0,
        "ifpo/effective_share": 1.0,
    }


def test_of_a_forced_episode_only_the_decision_carries_loss(tokenizer: Path, tmp_path: Path) -> None:
    counts = []
    for forced in (False, True):
        folder = tmp_path / str(forced)
        folder.mkdir()
        episodes = [
            make_episode("a", "harmful", REFUSAL, sample=0, consult=True, mode_forced=forced),
            make_episode("a", "harmful", "Yes.", sample=1),
        ]
        if forced:  # the agent wrote the call: no turn of the model contains it
            episodes[0] = episodes[0].model_copy(update={"turns": episodes[0].turns[1:]})
        log = write_log(folder / "log.jsonl", episodes)
        write_rewards(folder / "rewards.jsonl", score_log(episodes))
        out = folder / "groups.parquet"
        assert run("prepare", log, folder / "rewards.jsonl", "--out", out, "--keep-forced")[0] == 0
        code, stdout, stderr = run("check", out, "--model", tokenizer, "--episode", "a-0", "--json")
        assert code == 0, stderr
        counts.append(sum(token["wrote"] for token in json.loads(stdout)["tokens"]))
    assert 0 < counts[1] < counts[0], "of a call by the agent, only the decision contributes to the loss"


def test_a_cold_start_and_metrics_in_an_unknown_format_are_refused(tmp_path: Path) -> None:
    start = tmp_path / "start"
    start.mkdir()
    run_json = {"stage": "sft", "steps": 8, "losses": [{"step": 4, "loss": 1.5}]}
    (start / "run.json").write_text(json.dumps(run_json), encoding="utf-8")
    code, _, stderr = run("plot", start, "--out", tmp_path / "compared")
    assert code == 1
    assert "recorded none of the plotted metrics" in stderr
    odd = tmp_path / "loop" / "rounds" / "001"
    odd.mkdir(parents=True)
    (odd / "statistics.json").write_text('{"x": 1}', encoding="utf-8")
    code, _, stderr = run("plot", tmp_path / "loop", "--out", tmp_path / "compared")
    assert code == 1
    assert "contains metrics in an unknown format (KeyError: 'one_mode_groups')" in stderr
