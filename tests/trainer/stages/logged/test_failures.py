"""Unusable episodes are counted by cause, and the others are trained on."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from evaluation.scorers import Reward, score_log, write_rewards
from tests.fakes.episodes.groups import write_groups
from tests.fakes.episodes.log import make_episode, write_log
from tests.fakes.models.tiny_llama import save_tiny_llama
from tests.trainer.stages.logged.test_stage import FAST, episodes, grouped, run

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("tiny"))


def test_unusable_episodes_are_counted_by_cause_and_the_rest_is_trained_on(
    model: Path, tmp_path: Path
) -> None:
    lone = make_episode("lone", "benign_plain", "Here is how.")
    overlong = make_episode("a", "benign_plain", "Here is a word. " * 100, sample=9)
    unjudged = make_episode("a", "benign_plain", "Here it is.", sample=8)
    not_a_number = make_episode("a", "benign_plain", "Here it was.", sample=7)
    logged = [*episodes(), lone, overlong, unjudged, not_a_number]
    log, rewards = write_log(tmp_path / "log.jsonl", logged), tmp_path / "rewards.jsonl"
    torn = make_episode("a", "benign_plain", "Here.", sample=6).model_dump_json()
    with log.open("a", encoding="utf-8") as file:
        file.write(torn[: len(torn) // 2])

    def corrupt(reward: Reward) -> Reward:
        if reward.episode_id == unjudged.id:
            return reward.model_copy(update={"total": None, "excluded": "the judge did not answer"})
        if reward.episode_id == not_a_number.id:
            return reward.model_copy(update={"total": math.nan})
        return reward

    write_rewards(rewards, [corrupt(reward) for reward in score_log(logged)])
    groups, out = tmp_path / "groups.parquet", tmp_path / "out"
    code, stdout, stderr = run("prepare", log, rewards, "--out", groups, "--json")
    assert code == 0, stderr
    left_out = json.loads(stdout)["left_out"]
    assert left_out["alone in its group"] == 1
    assert left_out["line that is not an episode"] == 1
    assert left_out["no reward (the judge did not answer)"] == 1
    assert sum(left_out.values()) == 4, left_out  # the fourth is the NaN reward
    code, _, stderr = run(
        "logged", "--model", model, "--groups", groups, "--out", out, *FAST, "--max_length", "300"
    )
    assert code == 0, stderr
    record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert record["data"]["left_out"]["longer than 300 tokens"] == 1
    assert record["data"]["episodes"] == 5


def test_an_episode_that_the_template_cannot_render_is_left_out_and_check_says_why(
    model: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    broken = shutil.copytree(model, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(broken)
    tokenizer.chat_template = (
        "{% for m in messages %}{% if 'Odd' in m.content %}{{ raise_exception('no odd answers') }}{% endif %}"
        "{% endfor %}" + tokenizer.chat_template
    )
    tokenizer.save_pretrained(broken)
    odd = make_episode("a", "benign_plain", "Odd answer.", sample=3)
    groups, out = grouped(tmp_path, [*episodes(), odd]), tmp_path / "out"
    code, _, stderr = run("logged", "--model", broken, "--groups", groups, "--out", out, *FAST)
    assert code == 0, stderr
    left_out = json.loads((out / "run.json").read_text(encoding="utf-8"))["data"]["left_out"]
    assert left_out["its template cannot render this conversation"] == 1
    code, _, stderr = run("check", groups, "--model", broken, "--episode", odd.id)
    assert code == 1
    assert "its template cannot render this conversation: the chat template raised" in stderr
    assert "no odd answers" in stderr


@pytest.mark.parametrize(("rewards", "fits"), [((1.0, 1.0), False), ((1.0, 0.0), True)])
def test_equal_rewards_are_refused_before_the_libraries_of_training_load(
    rewards: tuple[float, float], fits: bool, tmp_path: Path
) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit(9)", encoding="utf-8")
    rows = [
        {"group_id": "g", "reward": reward, "mode": mode, "consultations": count, "episode_id": mode}
        for reward, mode, count in zip(rewards, ("consult", "direct"), (1, 0), strict=True)
    ]
    groups = write_groups(tmp_path / "groups.parquet", rows)
    command = [sys.executable, "-m", "trainer.cli", "logged", "--model", "m", "--groups", str(groups)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), str(ROOT)))}

    def logged(*options: str) -> subprocess.CompletedProcess[str]:
        words = [*command, "--out", str(tmp_path / "out"), *options]
        return subprocess.run(words, env=environment, capture_output=True, text=True, check=False)

    result = logged()
    assert ("so there is nothing to learn: sample again" in result.stderr) is not fits
    assert (result.returncode == 1) is not fits
    if not fits:
        assert result.stderr.count("\n") == 1
        assert "nothing to learn" not in logged("--method", "grpo+cost", "--cost", "0.1").stderr
