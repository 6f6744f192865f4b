"""`ascl-train prepare` and `stats`: groups from a log and its rewards."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from agent.episode import Episode
from agent.episode.migrations import CURRENT_VERSION
from evaluation.cli.app import app as evaluation_app
from evaluation.scorers import score_log, write_rewards
from tests.fakes.episodes.log import make_episode, write_log
from trainer.cli import app
from trainer.groups.parquet import read_groups
from trainer.ifpo import ifpo_advantages

ROOT = Path(__file__).resolve().parents[3]
REFUSAL = "I can't help with that."


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def prepare(folder: Path, episodes: list[Episode], *options: str) -> tuple[int, str, str, Path]:
    log = write_log(folder / "log.jsonl", episodes)
    write_rewards(folder / "rewards.jsonl", score_log(episodes))
    out = folder / "groups.parquet"
    return *run("prepare", log, folder / "rewards.jsonl", "--out", out, *options), out


def mixed_group(prompt: str, kind: str = "benign_sensitive") -> list[Episode]:
    """Returns three consulting episodes, two of which end in a refusal, and a direct one."""
    return [
        make_episode(prompt, kind, REFUSAL, sample=0, consult=True),
        make_episode(prompt, kind, REFUSAL, sample=1, consult=True),
        make_episode(prompt, kind, "Here is how.", sample=2, consult=True),
        make_episode(prompt, kind, "Here is how.", sample=3),
    ]


def test_the_file_holds_the_advantages_of_both_methods(tmp_path: Path) -> None:
    episodes = mixed_group("a") + mixed_group("b", "harmful")
    code, _, _, out = prepare(tmp_path, episodes)
    assert code == 0
    columns, about = read_groups(out)
    assert columns["episode_id"] == [episode.id for episode in episodes]
    assert columns["mode"] == ["consult", "consult", "consult", "direct"] * 2
    assert columns["reward"] == [0, 0, 1, 1, 1, 1, 0, 0]
    for method, alpha in (("ifpo", 1.0), ("grpo", 0.0)):
        expected = ifpo_advantages(columns["reward"], columns["mode"], columns["group_id"], alpha=alpha)
        np.testing.assert_array_equal(columns[f"advantage_{method}"], expected)
    assert columns["weight"][:4] == pytest.approx([2 / 3, 2 / 3, 2 / 3, 2])
    assert json.loads(columns["messages"][0]) == episodes[0].messages
    assert about["settings"]["alpha"] == 1.0


def test_unusable_episodes_are_counted_by_cause(tmp_path: Path) -> None:
    fault = {"boundary": "endpoint", "type": "http_500", "message": "m"}
    usable = mixed_group("a")
    episodes = [
        *usable,
        usable[0],
        make_episode("a", "benign_sensitive", None, sample=7, stop_reason="error", error=fault),
        make_episode("a", "benign_sensitive", "Yes.", sample=8, mode_forced=True),
        make_episode("a", "benign_sensitive", None, sample=9, stop_reason="limit").model_copy(
            update={"turns": []}
        ),
        make_episode("b", sample=0),
        make_episode("c", "benign_plain", "Yes.", sample=0),
        make_episode("c", "benign_plain", "Yes.", sample=1, policy_version="later"),
        make_episode("d", "nonsense", "Yes.", sample=0),
    ]
    log = write_log(tmp_path / "log.jsonl", episodes)
    with log.open("a", encoding="utf-8") as file:
        file.write('{"id": "torn off he')
    unique = {episode.id: episode for episode in episodes}
    scored = [reward for reward in score_log(unique.values()) if reward.episode_id != usable[3].id]
    write_rewards(tmp_path / "rewards.jsonl", scored)
    code, stdout, _ = run(
        "prepare", log, tmp_path / "rewards.jsonl", "--out", tmp_path / "groups.parquet", "--json"
    )
    assert code == 0
    assert json.loads(stdout)["left_out"] == {
        "a second episode of that id": 1,
        "alone in its group": 1,
        "ended before its first reply": 1,
        "ended in an error": 1,
        "its group mixes checkpoints, rulebooks or settings": 2,
        "its mode was forced": 1,
        "line that is not an episode": 1,
        "no reward (unknown kind: nonsense)": 1,
        "not scored": 1,
    }
    assert json.loads(stdout)["episodes"] == 3


def test_a_log_without_usable_episodes_is_refused_and_an_earlier_file_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "groups.parquet"
    out.write_text("earlier", encoding="utf-8")
    code, _, stderr, _ = prepare(tmp_path, [make_episode("a", sample=0)], "--overwrite")
    assert code == 1
    assert "no episode in" in stderr
    assert "alone in its group: 1" in stderr
    assert out.read_text(encoding="utf-8") == "earlier"
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.jsonl", "rewards.jsonl"], "cannot read missing.jsonl"),
        (["log.jsonl", "missing.jsonl"], "the rewards file 'missing.jsonl' does not exist"),
    ],
)
def test_the_error_names_a_missing_file(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_log(tmp_path / "log.jsonl", mixed_group("a"))
    write_rewards(tmp_path / "rewards.jsonl", score_log(mixed_group("a")))
    code, _, stderr = run("prepare", *arguments, "--out", "groups.parquet")
    assert code == 1
    assert message in stderr
    assert "Traceback" not in stderr


def test_the_log_is_never_overwritten(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.jsonl", mixed_group("a"))
    before = log.read_bytes()
    code, _, stderr = run("prepare", log, tmp_path / "rewards.jsonl", "--out", log)
    assert code == 2
    assert "never overwritten" in stderr
    assert log.read_bytes() == before


def test_an_unknown_option_is_a_usage_error() -> None:
    code, _, stderr = run("prepare", "a", "b", "--out", "c", "--aplha", "1")
    assert code == 2
    assert "No such option" in stderr


def test_statistics_warn_where_reward_cannot_reduce_consulting(tmp_path: Path) -> None:
    always_better = [
        make_episode("a", "benign_plain", "Here is how.", sample=0, consult=True),
        make_episode("a", "benign_plain", REFUSAL, sample=1),
    ]
    _, stdout, _, out = prepare(tmp_path, mixed_group("b") + always_better + mixed_group("c", "harmful"))
    assert "benign_plain: D is +1.00, not below zero" in stdout
    code, stdout, _ = run("stats", out, "--json")
    assert code == 0
    statistics = json.loads(stdout)
    assert statistics["groups"] == 3
    assert statistics["kinds"]["benign_sensitive"]["consult"]["share"] == 0.75
    assert statistics["kinds"]["benign_sensitive"]["gain"]["value"] == pytest.approx(1 / 3 - 1, abs=1e-6)
    assert statistics["kinds"]["harmful"]["reward_consult"] == pytest.approx(2 / 3, abs=1e-6)
    assert statistics["largest_weight"] == 2
    assert statistics["push"]["ifpo"]["direct"] == pytest.approx(-statistics["push"]["ifpo"]["consult"])


def test_statistics_count_one_mode_and_equal_reward_groups(tmp_path: Path) -> None:
    one_mode = [make_episode("a", sample=0, answer=REFUSAL), make_episode("a", sample=1)]
    equal = [make_episode("b", sample=0), make_episode("b", sample=1, consult=True)]
    *_, out = prepare(tmp_path, mixed_group("c") + one_mode + equal)
    statistics = json.loads(run("stats", out, "--json")[1])
    assert (statistics["one_mode_groups"], statistics["equal_reward_groups"]) == (1, 1)


def test_a_file_that_prepare_did_not_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "groups.parquet"
    path.write_text("not Parquet", encoding="utf-8")
    code, _, stderr = run("stats", path)
    assert code == 1
    assert "was not written by `ascl-train prepare`" in stderr


def test_human_corrections_reach_the_groups_and_are_counted(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.jsonl", episodes := mixed_group("a"))
    labels = tmp_path / "labels.jsonl"
    labels.write_text(
        json.dumps({"episode_id": episodes[0].id, "refused": False, "by": "someone"})
        + "\n"
        + json.dumps({"episode_id": "of another log", "outcome": 1}),
        encoding="utf-8",
    )
    rewards = tmp_path / "rewards.jsonl"
    result = CliRunner().invoke(
        evaluation_app, ["score", str(log), "--out", str(rewards), "--labels", str(labels)]
    )
    assert "1 corrected by" in result.stdout
    assert "1 labels match no episode in this log" in result.stdout
    code, stdout, _ = run("prepare", log, rewards, "--out", tmp_path / "groups.parquet", "--json")
    assert code == 0
    assert json.loads(stdout)["corrected"] == 1
    assert read_groups(tmp_path / "groups.parquet")[0]["reward"] == [1, 0, 1, 1]


def test_rewards_may_be_in_another_order_than_the_log(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.jsonl", episodes := mixed_group("a") + mixed_group("b"))
    write_rewards(tmp_path / "ordered.jsonl", score_log(episodes))
    write_rewards(tmp_path / "reversed.jsonl", score_log(reversed(episodes)))
    results = []
    for name in ("ordered", "reversed"):
        code, *_ = run("prepare", log, tmp_path / f"{name}.jsonl", "--out", tmp_path / f"{name}.parquet")
        assert code == 0
        results.append(read_groups(tmp_path / f"{name}.parquet")[0])
    assert results[0] == results[1]


def test_the_error_names_an_episode_with_two_rewards(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.jsonl", episodes := mixed_group("a"))
    write_rewards(tmp_path / "rewards.jsonl", score_log([*episodes, episodes[1]]))
    code, _, stderr = run("prepare", log, tmp_path / "rewards.jsonl", "--out", tmp_path / "groups.parquet")
    assert code == 1
    assert f"one of two rewards of the episode '{episodes[1].id}'" in stderr


def test_samples_that_differ_only_in_their_seed_form_one_group(tmp_path: Path) -> None:
    episodes = [
        make_episode("a", sample=n, consult=n == 0, sampling_sent={"temperature": 1.0, "seed": n})
        for n in range(3)
    ]
    code, stdout, *_ = prepare(tmp_path, episodes)
    assert code == 0
    assert "3 episodes in 1 groups" in stdout


def test_keep_forced_keeps_forced_episodes_in_their_group(tmp_path: Path) -> None:
    episodes = [*mixed_group("a"), make_episode("a", "benign_sensitive", REFUSAL, sample=4, mode_forced=True)]
    *_, out = prepare(tmp_path, episodes, "--keep-forced")
    columns, about = read_groups(out)
    assert columns["forced"] == [False] * 4 + [True]
    assert about["stratified"] is True


def test_the_consult_rate_counts_free_episodes_only(tmp_path: Path) -> None:
    episodes = [
        make_episode("a", "benign_sensitive", "Here is how.", sample=0, consult=True),
        make_episode("a", "benign_sensitive", "Here is how.", sample=1, consult=True),
        make_episode("a", "benign_sensitive", REFUSAL, sample=2, mode_forced=True),
        make_episode("a", "benign_sensitive", REFUSAL, sample=3, consult=True, mode_forced=True),
    ]
    *_, out = prepare(tmp_path, episodes, "--keep-forced")
    kind = json.loads(run("stats", out, "--json")[1])["kinds"]["benign_sensitive"]
    assert (kind["consult"]["share"], kind["consult"]["n"]) == (1.0, 2)
    assert (kind["episodes"], kind["consulting"]) == (4, 3)
    assert kind["reward_consult"] == pytest.approx(2 / 3, abs=1e-6), "rewards count forced episodes too"


def test_the_file_records_its_sources(tmp_path: Path) -> None:
    *_, out = prepare(tmp_path, mixed_group("a"))
    _, about = read_groups(out)
    log = (tmp_path / "log.jsonl").read_bytes()
    assert about["sources"]["log_sha256"] == hashlib.sha256(log).hexdigest()
    assert about["sources"]["rulebook_digests"] == ["ab" * 32]
    assert about["sources"]["policy_versions"] == ["start"]


def test_statistics_warn_if_most_groups_hold_one_mode(tmp_path: Path) -> None:
    episodes = [
        make_episode(prompt, sample=n, answer=REFUSAL if n else "Yes.") for prompt in "ab" for n in range(2)
    ]
    _, stdout, *_ = prepare(tmp_path, episodes)
    assert "100% of the groups contain one mode only" in stdout


def test_a_full_disk_leaves_only_the_earlier_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow.parquet

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "groups.parquet")

    *_, out = prepare(tmp_path, mixed_group("a"))
    earlier = out.read_bytes()
    monkeypatch.setattr(pyarrow.parquet.ParquetWriter, "write_table", fail)
    code, _, stderr, _ = prepare(tmp_path, mixed_group("b"), "--overwrite")
    assert code == 1
    assert "No space left on device" in stderr
    assert out.read_bytes() == earlier
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []


@pytest.mark.parametrize("version", range(1, CURRENT_VERSION + 1))
def test_every_log_version_that_the_agent_reads_is_supported(version: int, tmp_path: Path) -> None:
    episodes = [episode.model_copy(update={"schema_version": version}) for episode in mixed_group("a")]
    code, *_ = prepare(tmp_path, episodes)
    assert code == 0


def many(count: int, seed: int) -> list[Episode]:
    """Returns groups of four of several kinds, with the samples of a prompt far apart."""
    rng = np.random.default_rng(seed)
    kinds = ("harmful", "benign_sensitive", "benign_plain")
    return [
        make_episode(
            f"p{number}",
            kinds[number % 3],
            REFUSAL if rng.random() < 0.5 else "Here is how.",
            sample=sample,
            consult=bool(rng.random() < 0.5),
        )
        for sample in range(4)
        for number in range(count)
    ]


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_the_number_of_partitions_does_not_change_the_result(
    scale: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    episodes = many(40, seed=0)
    lone, duplicate = make_episode("alone", sample=0), episodes[5]
    results = []
    for size in (1 << 30, 1 << 10):
        monkeypatch.setattr("trainer.groups.prepare.PARTITION_BYTES", size)
        monkeypatch.setattr("trainer.groups.spill._BATCH_ROWS", 7 if size == 1 << 10 else 4096)
        folder = tmp_path / str(size)
        folder.mkdir()
        log = write_log(folder / "log.jsonl", [lone, *episodes, duplicate])
        write_rewards(folder / "rewards.jsonl", score_log([lone, *episodes]))
        out = folder / "groups.parquet"
        arguments = ("prepare", log, folder / "rewards.jsonl", "--out", out, "--json")
        code, stdout, _ = run(*arguments, "--scale-rewards", scale)
        assert code == 0
        results.append((read_groups(out)[0], json.loads(stdout)))
        del results[-1][1]["out"]
    one, several = (columns for columns, _ in results)
    numbers = ("weight", "advantage_ifpo", "advantage_grpo")
    assert {k: v for k, v in one.items() if k not in numbers} == {
        k: v for k, v in several.items() if k not in numbers
    }
    assert one["episode_id"] == [episode.id for episode in episodes]
    for name in numbers:
        np.testing.assert_allclose(several[name], one[name], rtol=1e-12, atol=1e-15)
    assert results[0][1] == results[1][1]
    assert results[0][1]["left_out"] == {"a second episode of that id": 1, "alone in its group": 1}


def test_statistics_do_not_depend_on_the_number_of_partitions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    *_, out = prepare(tmp_path, many(300, seed=1))
    statistics = []
    for rows in (65536, 50):
        monkeypatch.setattr("trainer.groups.statistics.PARTITION_ROWS", rows)
        statistics.append(json.loads(run("stats", out, "--json")[1]))
    for kind in statistics[0]["kinds"].values():
        assert kind["episodes"] == 400
    assert statistics[1] == statistics[0]


def test_statistics_are_deterministic_and_write_nothing_beside_the_file(tmp_path: Path) -> None:
    *_, out = prepare(tmp_path, many(40, seed=2))
    modified = tmp_path.stat().st_mtime_ns
    tmp_path.chmod(0o555)
    try:
        outputs = {
            subprocess.run(
                [sys.executable, "-m", "trainer.cli", "stats", out, "--json"],
                capture_output=True, check=True, cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": seed},
            ).stdout
            for seed in ("1", "2")
        }  # fmt: skip
    finally:
        tmp_path.chmod(0o755)
    assert len(outputs) == 1
    assert tmp_path.stat().st_mtime_ns == modified, "no file was written there, not even temporarily"
    assert json.loads(outputs.pop())["kinds"]["harmful"]["gain"]["low"] is not None


def test_a_group_with_two_prompts_or_kinds_is_left_out(tmp_path: Path) -> None:
    odd = [
        make_episode("a", "harmful", sample=0, group_id="one"),
        make_episode("b", "harmful", sample=0, group_id="one", prompt="prompt a"),
        make_episode("c", "harmful", sample=0, group_id="two"),
        make_episode("c", "benign_plain", sample=1, group_id="two"),
    ]
    code, stdout, _, _ = prepare(tmp_path, odd + mixed_group("d"), "--json")
    assert code == 0
    assert json.loads(stdout)["left_out"] == {"its group mixes checkpoints, rulebooks or settings": 4}


def test_two_rewards_of_one_episode_are_detected_across_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.groups.log_reader._BATCH_SIZE", 3)
    monkeypatch.setattr("trainer.groups.prepare.PARTITION_BYTES", 1 << 10)
    log = write_log(tmp_path / "log.jsonl", episodes := many(10, seed=3))
    write_rewards(tmp_path / "rewards.jsonl", score_log([*episodes, episodes[0]]))
    code, _, stderr = run("prepare", log, tmp_path / "rewards.jsonl", "--out", tmp_path / "groups.parquet")
    assert code == 1
    assert f"one of two rewards of the episode '{episodes[0].id}'" in stderr


@pytest.mark.parametrize("option", ["--alpha", "--w-max"])
def test_the_error_names_a_setting_that_is_not_a_number(option: str, tmp_path: Path) -> None:
    code, _, stderr = run("prepare", "log", "rewards", "--out", tmp_path / "out", option, "nan")
    assert code == 2
    assert option in stderr
    assert "Traceback" not in stderr


def test_an_infinite_alpha_is_refused(tmp_path: Path) -> None:
    code, _, stderr, out = prepare(tmp_path, mixed_group("a"), "--alpha", "inf")
    assert code == 1
    assert "alpha is inf, but it must be a finite number" in stderr
    assert not out.exists()


def test_sampling_settings_that_training_cannot_reproduce_are_reported_and_recorded(tmp_path: Path) -> None:
    sent = {"temperature": 1.0, "top_p": 0.9, "top_k": -1, "min_p": None, "logit_bias": {}}
    filtered = [each.model_copy(update={"sampling_sent": sent}) for each in mixed_group("a")]
    code, _, stderr, out = prepare(tmp_path, filtered)
    assert code == 0
    assert "the episodes were sampled with top_p 0.9. Training models the temperature only" in stderr
    assert read_groups(out)[1]["sources"]["sampled_with"] == ["top_p 0.9"]
    assert prepare(tmp_path, mixed_group("a"), "--overwrite")[2] == ""
    biased = [
        each.model_copy(update={"sampling_sent": {"temperature": 1.0, "logit_bias": {"44": -5.4}}})
        for each in mixed_group("a")
    ]
    assert "sampled with logit_bias {'44': -5.4}" in prepare(tmp_path, biased, "--overwrite")[2]


def test_a_difference_over_few_prompts_has_no_interval(tmp_path: Path) -> None:
    _, stdout, _, _ = prepare(tmp_path, mixed_group("a"))
    assert "fewer than 5 prompts showed each mode, too few for an interval" in stdout


def test_the_options_of_the_samplers_chat_template_are_stored_with_the_episode(tmp_path: Path) -> None:
    options = {"enable_thinking": False}
    sent: list[dict[str, Any]] = [
        {"temperature": 1.0, "chat_template_kwargs": options},
        {"temperature": 1.0, "extra_body": {"chat_template_kwargs": options}},
        {"temperature": 1.0, "extra_body": {}},
    ]
    episodes = [
        make_episode(f"p{number}", sample=sample, consult=sample == 0, sampling_sent=sampling)
        for number, sampling in enumerate(sent)
        for sample in range(2)
    ]
    code, _, stderr, out = prepare(tmp_path, episodes)
    assert code == 0, stderr
    stored = read_groups(out, ["template_options"])[0]["template_options"]
    assert [text and json.loads(text) for text in stored] == [options] * 4 + [None] * 2
