"""Training all weights (`lora_rank` 0) in `sft`, `logged` and `online`, instead of an adapter."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from trl import GRPOTrainer
from typer.testing import CliRunner

from tests.fakes.episodes.log import write_log
from tests.fakes.models.tiny_llama import save_tiny_llama
from tests.fakes.rules.scripted import ScriptedRules
from tests.trainer.stages.logged.test_stage import episodes, grouped
from trainer.cli import app
from trainer.stages.model_io import save_stage
from trainer.stages.monitoring import FloorMonitor, SafetyFloor

ROOT = Path(__file__).resolve().parents[3]
ALL = ("--lora_rank", "0")
FAST = ("--learning_rate", "0.01", "--per_device_train_batch_size", "2")

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def unchanged(before: Path, after: Path) -> list[str]:
    """Names of the weights that are equal in two model folders."""
    one, two = (load_file(folder / "model.safetensors") for folder in (before, after))
    assert one.keys() == two.keys()
    return [name for name in one if torch.equal(one[name], two[name])]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def rules() -> Iterator[ScriptedRules]:
    with ScriptedRules() as service:
        yield service


@pytest.fixture
def first_tokens_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model writes a refusal or an answer, in turn, so that rewards differ."""

    def generate(self: Any, prompt_ids: Any, *args: Any, **kwargs: Any) -> tuple[Any, None]:
        texts = ["I can't help with that.", "Here is how."]
        encoded = [self._tokenizer.encode(texts[n % 2]) for n in range(len(prompt_ids))]
        return [[*ids, self._tokenizer.eos_token_id] for ids in encoded], None

    monkeypatch.setattr(GRPOTrainer, "_generate_single_turn", generate)


def test_a_model_is_trained_by_all_three_stages_in_turn(
    model: Path, rules: ScriptedRules, first_tokens_differ: None, tmp_path: Path
) -> None:
    demonstrations = write_log(tmp_path / "demonstrations.jsonl", episodes())
    groups = grouped(tmp_path, episodes())
    sft, logged, online = (tmp_path / name for name in ("sft", "logged", "online"))
    code, output = run(
        *("sft", "--model", model, "--out", sft, "--demonstrations", demonstrations, *ALL),
        *("--epochs", 1, "--batch-size", 2),
    )
    assert code == 0, output
    settings = json.loads((sft / "run.json").read_text(encoding="utf-8"))["settings"]
    assert (settings["lora_rank"], settings["learning_rate"]) == (0, 2e-5)
    assert unchanged(model, sft / "merged") == []

    start = sft / "merged"
    (logged / "adapter").mkdir(parents=True)  # of an earlier run
    code, output = run(
        *("logged", "--model", start, "--groups", groups, "--out", logged, *ALL, *FAST, "--beta", 0.1),
    )
    assert code == 0, output
    record = json.loads((logged / "run.json").read_text(encoding="utf-8"))
    assert record["arguments"]["lora_rank"] == 0
    assert record["steps"][0]["kl"] == pytest.approx(0, abs=1e-6)  # the reference is the starting model
    assert record["steps"][-1]["kl"] > 1e-4
    assert unchanged(start, logged / "merged") == []
    assert not (logged / "adapter").exists()

    prompts = tmp_path / "prompts.jsonl"
    rows = [{"id": "h", "prompt": "A gun?", "kind": "harmful"}, {"id": "b", "prompt": "An egg?"}]
    prompts.write_text("".join(json.dumps({"kind": "benign_plain", **row}) + "\n" for row in rows))
    code, output = run(
        *(
            "online",
            "--model",
            logged / "merged",
            "--prompts",
            prompts,
            "--rules-url",
            rules.url,
            "--out",
            online,
        ),
        *("--per_device_train_batch_size", 8, "--num_generations", 4, "--max_steps", 2, *ALL),
        *("--learning_rate", 0.01, "--max_completion_length", 40, "--beta", 0.1),
    )
    assert code == 0, output
    steps = json.loads((online / "run.json").read_text(encoding="utf-8"))["steps"]
    assert steps[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert unchanged(logged / "merged", online / "merged") == []
    assert sorted(path.name for path in online.iterdir() if path.is_dir()) == ["merged"]


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(model: Path, tmp_path: Path) -> None:
    groups, out = grouped(tmp_path, episodes()), tmp_path / "out"
    command = ("logged", "--model", model, "--groups", groups, "--out", out, *ALL, *FAST, "--beta", 0.1)
    command += ("--num_train_epochs", 2, "--save_strategy", "steps", "--save_steps", 2, "--max_drift", 100)
    code, output = run(*command)
    assert code == 0, output
    unbroken = shutil.copytree(out / "merged", tmp_path / "unbroken")
    shutil.rmtree(out / "merged")
    for late in ("checkpoint-6", "checkpoint-4"):
        shutil.rmtree(out / late)
    code, output = run(*command, "--resume")
    assert code == 0, output
    assert "resuming from" in output
    assert "checkpoint-2" in output
    equal = unchanged(unbroken, out / "merged")
    assert len(equal) == len(load_file(unbroken / "model.safetensors"))
    code, output = run(*command[:-2], *command[-2:], "--lora_rank", 4, "--resume")
    assert code == 1
    assert "was started with" in output


def start(command: list[str], **options: Any) -> subprocess.Popen[str]:
    environment = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "ACCELERATE_USE_CPU": "true"}
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.mark.slow
def test_a_run_killed_with_kill_9_resumes_to_the_same_weights(model: Path, tmp_path: Path) -> None:
    groups = grouped(tmp_path, episodes())
    command = ["logged", "--model", model, "--groups", groups, *ALL, *FAST, "--num_train_epochs", 6]
    command += ["--save_strategy", "steps", "--save_steps", 1, "--save_total_limit", 2, "--max_drift", 100]
    code, output = run(*command, "--out", tmp_path / "unbroken")
    assert code == 0, output
    words = [str(word) for word in (*command, "--out", tmp_path / "killed")]
    for step, resume in ((4, []), (11, ["--resume"])):
        process = start(["-m", "trainer.cli", *words, *resume])
        assert process.stderr is not None
        with process.stderr as lines:
            assert any(f"step {step}/" in line for line in lines)
            process.kill()
        assert process.wait(60) == -9
    code, output = run(*words, "--resume")
    assert code == 0, output
    equal = unchanged(tmp_path / "unbroken" / "merged", tmp_path / "killed" / "merged")
    assert len(equal) == len(load_file(model / "model.safetensors"))


@pytest.mark.slow
def test_two_processes_learn_the_same_as_one(model: Path, tmp_path: Path) -> None:
    groups = grouped(tmp_path, episodes())
    command = ["logged", "--model", model, "--groups", groups, *ALL, "--optim", "sgd", "--beta", 0.02]
    command += ["--learning_rate", 0.05, "--num_train_epochs", 3, "--max_drift", 100]
    code, output = run(*command, "--out", tmp_path / "one", "--per_device_train_batch_size", 4)
    assert code == 0, output
    words = [str(word) for word in (*command, "--out", tmp_path / "two", "--per_device_train_batch_size", 2)]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "trainer.cli"]
    process = start([*launcher, *words])
    _, stderr = process.communicate(timeout=600)
    assert process.returncode == 0, stderr[-3000:]
    one, two = (load_file(tmp_path / name / "merged" / "model.safetensors") for name in ("one", "two"))
    assert unchanged(model, tmp_path / "two" / "merged") == []
    for name, weights in one.items():
        torch.testing.assert_close(two[name], weights, rtol=0, atol=1e-5)


def test_below_the_floor_all_weights_are_restored(model: Path) -> None:
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(model, dtype="float32")
    good = {name: value.clone() for name, value in network.state_dict().items()}
    monitor = FloorMonitor(SafetyFloor(consult=0.5), lambda line: None)
    assert monitor.check(network, 4, 0.9) is None
    with torch.no_grad():
        for weights in network.parameters():
            weights.add_(1.0)
    control = SimpleNamespace(should_training_stop=False)
    monitor.stop(network, 8, str(monitor.check(network, 8, 0.1)), control)
    assert control.should_training_stop
    assert monitor.stopped is not None
    assert "the weights of step 4 were restored" in monitor.stopped
    assert all(torch.equal(good[name], value) for name, value in network.state_dict().items())


def test_weights_gathered_from_shards_are_saved_like_those_of_one_process(
    model: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    network = AutoModelForCausalLM.from_pretrained(model, dtype="float32")
    accelerator = SimpleNamespace(
        is_main_process=True, get_state_dict=lambda held: held.state_dict(), unwrap_model=lambda held: held
    )
    for name, is_sharded in (("sharded", True), ("whole", False)):
        trainer = SimpleNamespace(is_fsdp_enabled=is_sharded, model=network, accelerator=accelerator)
        save_stage(tmp_path / name, trainer, AutoTokenizer.from_pretrained(model), str(model))
    files = [tmp_path / name / "merged" / "model.safetensors" for name in ("sharded", "whole")]
    assert unchanged(files[0].parent, files[1].parent) == list(load_file(model / "model.safetensors"))


@pytest.mark.parametrize("stage", ["logged", "online", "sft"])
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--lora_rank", "-1"), "lora_rank is -1, but it must be at least 0"),
        (("--lora_rank", "0", "--lora_layers", "4"), "remove lora_layers, or set lora_rank"),
        (("--lora_layers", "0"), "lora_layers is 0, but it must be at least 1"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    options: tuple[str, ...], expected: str, stage: str, model: Path, tmp_path: Path
) -> None:
    groups = tmp_path / "groups.parquet"
    groups.write_bytes(b"")
    named = {"logged": ("--groups", groups), "online": (), "sft": ()}[stage]
    code, output = run(stage, "--model", model, "--out", tmp_path / "out", *named, *options)
    assert code == 1
    assert expected in output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("stage", ["logged", "sft"])
def test_an_adapter_in_place_of_a_model_is_refused_with_the_folder_to_pass(
    stage: str, model: Path, tmp_path: Path
) -> None:
    adapter = shutil.copytree(model, tmp_path / "run" / "adapter")
    (adapter / "adapter_config.json").write_text("{}", encoding="utf-8")
    named = ("--groups", grouped(tmp_path, episodes())) if stage == "logged" else ()
    code, output = run(stage, "--model", adapter, "--out", tmp_path / "out", *named, *ALL)
    assert code == 1
    assert "is an adapter, not a model" in output
    assert str(tmp_path / "run" / "merged") in "".join(output.split("\n"))


def test_weights_of_sixteen_bits_are_warned_about(model: Path, tmp_path: Path) -> None:
    groups = grouped(tmp_path, episodes())
    config = tmp_path / "run.yaml"
    config.write_text("model_init_kwargs: {dtype: bfloat16}\nmax_steps: 1\n", encoding="utf-8")
    named = ("logged", "--model", model, "--groups", groups, "--config", config, *FAST)
    code, output = run(*named, "--out", tmp_path / "all", *ALL)
    assert code == 0, output
    assert "leave out dtype to train in float32" in " ".join(output.split())
