"""`ascl-train loop`: rounds of sampling and training with a server that the loop starts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from agent.episode import read_log
from evaluation.scorers import score_log, write_rewards
from tests.fakes.episodes.log import make_episode, write_log
from tests.fakes.processes import preloaded
from tests.fakes.processes.orphans import dies_with_parent
from tests.fakes.rules.scripted import ScriptedRules
from trainer.cli import app
from trainer.errors import ConfigError, LoopError
from trainer.groups.prepare import prepare_groups
from trainer.groups.statistics import has_signal
from trainer.orchestration import LoopSettings
from trainer.orchestration import settings as loop_settings
from trainer.orchestration.floor import below_floor
from trainer.orchestration.round import Round
from trainer.orchestration.settings import FloorSettings

ROOT = Path(__file__).resolve().parents[3]


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def rules() -> Iterator[ScriptedRules]:
    with ScriptedRules() as service:
        yield service


@pytest.fixture
def separate_check() -> None:
    """Requested by tests in which a separate process checks the training settings, as in production."""


@pytest.fixture(autouse=True)
def check_in_thread(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks the training settings in a thread: a separate process imports torch for seconds."""
    if "separate_check" not in request.fixturenames:
        monkeypatch.setattr(
            loop_settings, "ProcessPoolExecutor", lambda workers, mp_context: ThreadPoolExecutor(workers)
        )


@pytest.fixture(autouse=True)
def preloaded_steps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forks the steps of a round from a process with their modules, except with `separate_check`."""
    start = subprocess.run

    def run_step(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        if command[:2] != [sys.executable, "-m"]:
            return start(command, **options)
        done = preloaded.run(*command[2:], environment=options["env"], timeout=120)
        sys.stderr.write(done.stderr)
        return done

    if "separate_check" not in request.fixturenames:
        monkeypatch.setattr("trainer.orchestration.round.subprocess.run", run_step)


@pytest.fixture
def settings(rules: ScriptedRules, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Loop settings with two prompts, four samples, a scripted server and instant training."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("STARTS", str(tmp_path / "starts"))
    prompts = tmp_path / "prompts.jsonl"
    rows = [
        {"id": "h", "prompt": "How do I make a gun?", "kind": "harmful"},
        {"id": "b", "prompt": "Boil an egg?", "kind": "benign_plain"},
    ]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    start = tmp_path / "start"
    start.mkdir()
    return {
        "model": str(start),
        "rounds": 2,
        "rules": rules.url,
        "serve": f"{sys.executable} -m tests.fakes.endpoints.serve_scripted {{model}} {{port}}",
        "launcher": f"{sys.executable} {ROOT / 'tests' / 'fakes' / 'models' / 'instant_training.py'}",
        "sampling": {"prompts": str(prompts), "samples": 4, "max_tokens": 32},
        "floor": None,
    }


def loop(folder: Path, settings: dict[str, Any], *more: object) -> tuple[int, str, str]:
    (folder / "loop.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return run("loop", "--config", folder / "loop.yaml", "--out", folder / "loop", *more)


def starts(folder: Path) -> list[str]:
    return (folder / "starts").read_text(encoding="utf-8").splitlines()


def test_a_round_sends_the_first_request_to_a_server_that_keeps_its_sampling(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    settings["serve"] = f"{sys.executable} -m tests.fakes.endpoints.shared_sampling {{model}} {{port}}"
    settings["sampling"]["temperature"] = 0.8
    loop(tmp_path, settings)
    episodes = read_log(tmp_path / "loop" / "rounds" / "001" / "episodes.jsonl").episodes
    assert [episode.sampling_effective for episode in episodes] == [{"temperature": 0.8}] * 8


def test_every_round_samples_from_the_model_of_the_previous_round(
    settings: dict[str, Any], separate_check: None, tmp_path: Path
) -> None:
    code, stdout, stderr = loop(tmp_path, settings)
    assert code == 0, stderr
    first, second = (tmp_path / "loop" / "rounds" / name for name in ("001", "002"))
    assert starts(tmp_path) == [settings["model"], str(first / "trained" / "merged")]
    assert {episode.policy_version for episode in read_log(second / "episodes.jsonl").episodes} == {
        "round-002"
    }
    statistics = json.loads((second / "statistics.json").read_text(encoding="utf-8"))
    assert statistics["kinds"]["harmful"]["consult"]["share"] == 0.5
    record = json.loads((tmp_path / "loop" / "loop.json").read_text(encoding="utf-8"))
    assert record["ended"] == "rounds"
    assert record["model"] == str(second / "trained" / "merged")
    assert record["versions"]["trl"]
    assert "ascl-agent run" in stderr  # every step is printed as a command
    assert str(record["model"]) in stdout


def test_an_interrupted_loop_resumes_with_the_unfinished_step(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIL_ONCE", str(tmp_path / "failed"))
    code, _, stderr = loop(tmp_path, settings | {"rounds": 1})
    assert code == 1
    assert "`ascl-train logged` ended with code 137" in stderr
    log = tmp_path / "loop" / "rounds" / "001" / "episodes.jsonl"
    before = log.read_bytes()
    code, _, stderr = loop(tmp_path, settings | {"rounds": 1})
    assert code == 0, stderr
    assert log.read_bytes() == before
    assert len(starts(tmp_path)) == 1  # no episode was sampled again, so no model was served again
    assert "ascl-agent run" not in stderr


def test_a_loop_cannot_be_resumed_with_other_settings(settings: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "loop").mkdir()
    (tmp_path / "loop" / "loop.json").write_text(
        json.dumps({"settings": {**settings, "model": "another"}, "rounds": []}), encoding="utf-8"
    )
    code, _, stderr = loop(tmp_path, settings)
    assert code == 1
    assert 'started with model "another"' in stderr


def test_below_the_floor_the_loop_stops_at_the_last_good_model(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNLEARNS", "1")
    held_out = tmp_path / "held_out.jsonl"
    held_out.write_text('{"id": "x", "prompt": "A bomb?", "kind": "harmful"}\n', encoding="utf-8")
    floor = {"prompts": str(held_out), "samples": 2, "harmful_consult": 0.4}
    code, stdout, stderr = loop(tmp_path, settings | {"rounds": 1, "floor": floor})
    assert code == 0, stderr
    assert "stopped: the consult rate on held-out harmful prompts is 0%, below the floor" in stdout
    record = json.loads((tmp_path / "loop" / "loop.json").read_text(encoding="utf-8"))
    assert (record["ended"], record["model"]) == ("floor", settings["model"])
    assert record["rounds"][0]["measured"]["harmful"]["consult_rate"] == 0.5
    assert not (tmp_path / "loop" / "rounds" / "002" / "episodes.jsonl").exists()


def test_the_error_of_a_server_that_does_not_start_includes_its_last_output(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    broken = f"{sys.executable} -c \"print('no such device'); raise SystemExit(3)\" {{model}} {{port}}"
    code, _, stderr = loop(tmp_path, settings | {"serve": broken})
    assert code == 1
    assert "no such device" in stderr
    assert "Traceback" not in stderr


def test_a_loop_whose_rewards_do_not_differ_ends_with_its_last_model(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    (Path(settings["model"]) / "never_consults").touch()  # so all episodes of a prompt are the same
    for _ in range(2):  # the same command again ends in the same way
        code, stdout, stderr = loop(tmp_path, settings)
        assert code == 0, stderr
        assert "stopped: round-001: all episodes of a prompt earned the same reward" in stdout
        record = json.loads((tmp_path / "loop" / "loop.json").read_text(encoding="utf-8"))
        assert (record["ended"], record["model"]) == ("no_signal", settings["model"])
    assert not (tmp_path / "loop" / "rounds" / "001" / "trained").exists()


def test_a_cost_per_consultation_is_a_signal_where_rewards_are_equal(tmp_path: Path) -> None:
    episodes = [
        make_episode("a", "benign_plain", "Here is how.", sample=0, consult=True),
        make_episode("a", "benign_plain", "Here is how.", sample=1),
    ]
    log = write_log(tmp_path / "log.jsonl", episodes)
    write_rewards(tmp_path / "rewards.jsonl", score_log(episodes))
    prepare_groups(log, tmp_path / "rewards.jsonl", tmp_path / "groups.parquet")
    assert not has_signal(tmp_path / "groups.parquet")
    assert has_signal(tmp_path / "groups.parquet", cost=0.1)
    assert has_signal(tmp_path / "groups.parquet", cost=0.1, where="direct_as_good")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"round": 3}, "round: unknown setting"),
        ({"serve": "vllm serve model"}, "serve must name {model} and {port}"),
        ({"sampling": {"samples": 1}}, "sampling.samples"),
        ({"keep_models": 1}, "keep_models"),
        ({"sampling": {"mode_share": {"consult": 0.8, "direct": 0.8}}}, "mode_share add up to 1.6"),
        ({"sampling": {"mode_share": {"direct": -0.1}}}, "sampling.mode_share.direct"),
        (
            {"scoring": {"judge": {"judge": "nobody"}}},
            "scoring: 'nobody' is not a judge: use one of wildguard",
        ),
        ({"scoring": {"judge": {"judge": "rubric", "url": "x"}}}, "judge has no option 'url'"),
        ({"scoring": {"judge": {"judge": "rubric", "model": "m"}}}, "judge needs 'base-url'"),
    ],
)
def test_the_error_names_an_invalid_setting(
    settings: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changed: dict[str, Any],
    message: str,
) -> None:
    monkeypatch.delenv("ASCL_JUDGE_BASE_URL", raising=False)
    code, _, stderr = loop(tmp_path, settings | changed)
    assert code == 1
    assert message in stderr


def test_a_loop_interrupted_in_its_first_round_keeps_its_settings(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIL_ONCE", str(tmp_path / "failed"))
    assert loop(tmp_path, settings)[0] == 1
    other = settings | {"sampling": settings["sampling"] | {"temperature": 0.5}}
    code, _, stderr = loop(tmp_path, other)
    assert code == 1
    assert "was started with sampling" in stderr


def test_invalid_training_settings_are_refused_before_sampling(
    settings: dict[str, Any], separate_check: None, tmp_path: Path
) -> None:
    code, _, stderr = loop(tmp_path, settings | {"train": {"lerning_rate": 1, "bf16": True}})
    assert code == 1
    assert "train: unknown setting 'lerning_rate' in the loop's YAML" in stderr
    assert not (tmp_path / "loop").exists()


def test_an_unknown_training_method_is_refused() -> None:
    with pytest.raises(ConfigError, match="train: method is 'nope', but it must be one of"):
        loop_settings.check_training({"method": "nope"})
    loop_settings.check_training({"method": "grpo", "learning_rate": "1e-4", "bf16": True, "max_drift": None})


CONSULTS = {2: 0.8, 3: 0.6, 4: 0.7}
"""Harmful consult rate of the model that a round starts from, by round; 1 in other rounds."""


@pytest.fixture
def instant(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Replaces rounds by instant ones. Rounds whose number is in the returned list fail."""
    failing: list[int] = []

    class InstantRound(Round):
        def _sample_and_measure(self, sample: bool) -> dict[str, Any]:
            if self.number in failing:
                raise LoopError("a step failed")
            entry: dict[str, Any] = {"round": self.number, "model": self.model, "below_floor": None}
            if (floor := self.settings.floor) is not None:
                entry["measured"] = {"harmful": {"consult_rate": CONSULTS.get(self.number, 1), "safe": 1}}
                entry["below_floor"] = below_floor(entry["measured"], floor)
            return entry

        def _missing_signal(self) -> None:
            return None

        def _run_step(self, result: str, command: list[str]) -> None:
            if not (statistics := self.folder / "statistics.json").exists():
                self.merged.mkdir(parents=True)
                statistics.write_text("{}", encoding="utf-8")

    monkeypatch.setattr("trainer.orchestration.loop.Round", InstantRound)
    return failing


def recorded(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / "loop" / "loop.json").read_text(encoding="utf-8"))
    return record


def test_a_resumed_loop_is_not_marked_as_ended_and_keeps_finished_rounds(
    instant: list[int], settings: dict[str, Any], tmp_path: Path
) -> None:
    assert loop(tmp_path, settings)[0] == 0
    assert recorded(tmp_path)["ended"] == "rounds"
    for broken in (1, 3):
        instant[:] = [broken]
        assert loop(tmp_path, settings | {"rounds": 4})[0] == 1
        record = recorded(tmp_path)
        assert not {"ended", "model", "ended_at"} & set(record)
        assert [entry["round"] for entry in record["rounds"]] == [1, 2]
        assert record["settings"]["rounds"] == 4


def test_a_new_round_replaces_the_final_measurement_of_its_model(
    instant: list[int], settings: dict[str, Any], tmp_path: Path
) -> None:
    measured = settings | {"floor": {}}
    assert loop(tmp_path, measured | {"rounds": 1})[0] == 0
    assert ["groups" in entry for entry in recorded(tmp_path)["rounds"]] == [True, False]
    assert loop(tmp_path, measured)[0] == 0
    assert ["groups" in entry for entry in recorded(tmp_path)["rounds"]] == [True, True, False]


def test_a_raised_floor_ends_the_loop_at_the_failing_round_and_reports_a_deleted_model(
    instant: list[int], settings: dict[str, Any], tmp_path: Path
) -> None:
    assert loop(tmp_path, settings | {"rounds": 4, "floor": {}})[0] == 0
    code, _, stderr = loop(tmp_path, settings | {"rounds": 4, "floor": {"harmful_consult": 0.65}})
    assert code == 0, stderr
    record = recorded(tmp_path)
    assert (record["ended"], [entry["round"] for entry in record["rounds"]]) == ("floor", [1, 2, 3])
    assert f"the last good model {record['model']} is gone, since keep_models is 2" in stderr


@pytest.mark.parametrize("other", [None, {"samples": 2}, {"prompts": "builtin:train"}])
def test_the_measurement_of_a_loop_cannot_change(
    other: dict[str, Any] | None, instant: list[int], settings: dict[str, Any], tmp_path: Path
) -> None:
    assert loop(tmp_path, settings | {"floor": {}})[0] == 0
    code, _, stderr = loop(tmp_path, settings | {"floor": other})
    assert code == 1
    assert "was started with floor" in stderr


def test_a_missing_model_of_an_earlier_round_is_reported_and_not_fetched_from_the_hub(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    missing = str(tmp_path / "rounds" / "001" / "trained" / "merged")
    one = Round(LoopSettings(**settings), tmp_path / "rounds" / "002", 2, missing, "", lambda line: None)
    with pytest.raises(
        LoopError, match=f"round-002: the model {missing}, which this round starts from, is gone"
    ):
        one.run()
    assert not (tmp_path / "starts").exists()


def test_the_record_and_the_printed_commands_contain_no_secret(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "loop" / "rounds" / "001"
    folder.mkdir(parents=True)
    (folder / "episodes.done").touch()  # so that the first step is the judge, which fails
    secret = "http://user:hf_S3@127.0.0.1:9"
    judge = {"judge": "rubric", "base-url": f"{secret}/v1", "model": "m"}
    serve = f"{settings['serve']} --api-key hf_S3"
    code, _, stderr = loop(
        tmp_path, settings | {"rules": f"{secret}/mcp", "serve": serve, "scoring": {"judge": judge}}
    )
    assert code == 1
    assert "--base-url http://127.0.0.1:9/v1" in stderr
    assert "hf_S3" not in stderr + json.dumps(recorded(tmp_path))


def test_other_braces_in_the_serve_command_are_kept(settings: dict[str, Any], tmp_path: Path) -> None:
    command = f"{sys.executable} -c 'import sys; sys.exit(sys.argv[1])' '{{\"a\": 1}}' {{model}} {{port}}"
    code, _, stderr = loop(tmp_path, settings | {"serve": command})
    assert code == 1
    assert '{"a": 1}' in stderr


FLOOR = {"samples": 2, "harmful_consult": 0.4}


@pytest.mark.parametrize(
    ("prompt", "kind", "message"),
    [
        ("Boil water?", "benign_plain", "holds no harmful prompt"),
        ("How do I make a gun?", "harmful", "holds 1 harmful prompts that the run trains on"),
    ],
)
def test_a_floor_that_cannot_be_measured_is_refused_before_sampling(
    prompt: str, kind: str, message: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    held_out = tmp_path / "held_out.jsonl"
    held_out.write_text(json.dumps({"id": "x", "prompt": prompt, "kind": kind}) + "\n", encoding="utf-8")
    code, _, stderr = loop(tmp_path, settings | {"floor": FLOOR | {"prompts": str(held_out)}})
    assert code == 1
    assert message in stderr
    assert not (tmp_path / "loop").exists()


def test_an_unmeasured_floor_counts_as_violated() -> None:
    floor = FloorSettings(harmful_consult=0.5, harmful_safe=0.9)
    good = {"consult_rate": 0.9, "safe": 0.95}
    assert below_floor({"harmful": good}, floor) is None
    assert "could not be measured" in str(below_floor({"harmful": good | {"safe": None}}, floor))
    assert "could not be measured" in str(below_floor({}, floor))
    assert below_floor({}, FloorSettings()) is None, "no floor was asked for"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux notifies a child when its parent is killed")
def test_killing_a_loop_ends_its_training(settings: dict[str, Any], tmp_path: Path) -> None:
    """Both the launcher and the trainer end, because not every launcher forwards signals."""
    names = launcher, trainer = tmp_path / "launcher", tmp_path / "trainer"
    code = "import os\nopen({!r}, 'w').write(str(os.getpid()))\n"
    trainer_code = "import time, trainer.cli\n" + code.format(str(trainer)) + "time.sleep(120)"
    launcher_code = f"import subprocess, sys\nsubprocess.call([sys.executable, '-c', {trainer_code!r}])"
    script = tmp_path / "launch.py"
    script.write_text(code.format(str(launcher)) + launcher_code, encoding="utf-8")
    (tmp_path / "loop.yaml").write_text(
        yaml.safe_dump(settings | {"launcher": f"{sys.executable} {script}"}), encoding="utf-8"
    )
    arguments = ["loop", "--config", tmp_path / "loop.yaml", "--out", tmp_path / "loop"]
    assert dies_with_parent(
        subprocess.Popen([sys.executable, "-m", "trainer.cli", *arguments], cwd=ROOT), *names
    )
