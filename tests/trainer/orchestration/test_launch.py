"""`ascl-train launch`: the commands of a run on several processes or nodes, and its memory."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from tests.fakes.processes.orphans import dies_with_parent
from trainer.cli import app
from trainer.errors import ConfigError
from trainer.orchestration import read_loop_settings, run_plan
from trainer.orchestration.gpu_memory import GIB, SIZES, estimate_gpu_memory, memory_table, model_shape
from trainer.orchestration.launch import Command
from trainer.stages import common_record, mask_secrets
from trainer.stages.logged.config import parse_logged
from trainer.stages.online.config import parse_online

ROOT = Path(__file__).resolve().parents[3]
RECIPES = ROOT / "trainer" / "recipes"


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def commands(*arguments: object) -> dict[str, str]:
    code, stdout, stderr = run("launch", *arguments, "--dry-run", "--json", "--out", "runs/x")
    assert code == 0, stderr
    return {each["title"]: each["command"] for each in json.loads(stdout)["commands"]}


def test_eight_gpus_are_split_between_sampler_and_trainers() -> None:
    planned = commands("online", "--config", RECIPES / "online-8gpu.yaml", "--gpus", 8, "--vllm-gpus", 2)
    assert list(planned) == ["the rules", "the sampler", "the training"]
    assert planned["the sampler"].startswith(
        "CUDA_VISIBLE_DEVICES=0,1 VLLM_SERVER_DEV_MODE=1 vllm serve Qwen/"
    )
    assert "--tensor-parallel-size 2" in planned["the sampler"]
    words = shlex.split(planned["the training"])
    assert words[0] == "CUDA_VISIBLE_DEVICES=2,3,4,5,6,7"
    assert words[words.index("--num_processes") + 1] == "6"
    assert Path(words[words.index("--config_file") + 1]).is_file()
    assert words[words.index("--vllm_mode") + 1] == "server"


def test_each_node_has_a_rank_and_the_first_serves_the_rules() -> None:
    shared = ("online", "--config", RECIPES / "online-nodes.yaml", "--gpus", 8, "--nodes", 2, "--main", "n0")
    first, second = commands(*shared, "--node", 0), commands(*shared, "--node", 1)
    assert list(first) == ["the rules", "the training"]
    assert list(second) == ["the training"]
    for number, planned in enumerate((first, second)):
        assert f"--machine_rank {number} --main_process_ip n0" in planned["the training"]
        assert "--num_processes 16 --num_machines 2" in planned["the training"]
        assert "--rules_url http://n0:8808/mcp" in planned["the training"]


def test_a_dry_run_prints_the_commands_and_a_memory_estimate() -> None:
    code, stdout, _ = run(
        *("launch", "online", "--config", RECIPES / "online-1gpu.yaml", "--out", "runs/x", "--dry-run")
    )
    assert code == 0
    assert "accelerate launch --mixed_precision bf16 --num_processes 1" in stdout
    assert re.search(r"about \d+\.\d GiB on each of 1 trainer GPUs .* fits 80 GiB", stdout)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["logged", "--vllm-gpus", 1, "--gpus", 2], "nothing is served"),
        (["online", "--gpus", 2, "--vllm-gpus", 2], "none train"),
        (["online", "--nodes", 2, "--main", "n0", "--node", 2], "numbered from 0"),
        (["online", "--nodes", 2], "pass its address with --main"),
    ],
)
def test_impossible_hardware_settings_are_refused(options: list[Any], message: str) -> None:
    stage, *rest = options
    config = RECIPES / "online-8gpu.yaml"
    code, _, stderr = run("launch", stage, "--config", config, *rest, "--out", "runs/x", "--dry-run")
    assert code == 1
    assert message in stderr


@pytest.mark.parametrize("name", sorted(path.name for path in RECIPES.glob("*.yaml")))
def test_every_recipe_is_valid(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = RECIPES / name
    if name == "fsdp2.yaml":
        assert yaml.safe_load(path.read_text(encoding="utf-8"))["fsdp_config"]["fsdp_version"] == 2
    elif name == "loop.yaml":
        read_loop_settings(path)
    elif name == "demo.yaml":
        parse_logged(path, ["--model", "m", "--groups", "g", "--output_dir", "o"])
    else:
        # Parsed as for a GPU run, on a machine that may have no GPU.
        parse_online(path, ["--output_dir", "o", "--bf16", "false", "--use_cpu", "true"])


def test_the_sizes_equal_those_of_the_published_models() -> None:
    assert [round(shape.parameters / 1e9, 2) for shape in SIZES.values()] == [1.72, 8.19, 32.76]
    assert SIZES["8B"].adapter_parameters(16) == 43_646_976  # the count of PEFT


def test_memory_is_the_sum_of_its_parts_and_falls_with_more_trainers() -> None:
    one, six = (estimate_gpu_memory(SIZES["8B"], trainers=n, vllm_gpus=0) for n in (1, 6))
    parts = (six.weights, six.adapter, six.optimizer, six.gathered, six.activations, six.logits)
    assert six.trainer == pytest.approx(sum(parts))
    assert one.weights / GIB == pytest.approx(15.26, abs=0.01)  # 8.19e9 weights of two bytes
    assert six.trainer < one.trainer
    assert not estimate_gpu_memory(SIZES["32B"], trainers=1, vllm_gpus=0).fits(24)
    assert len(memory_table().splitlines()) == 2 + 9


def test_all_weights_need_sixteen_bytes_each_sharded_over_the_trainers() -> None:
    shape = SIZES["1.7B"]
    one, six = (estimate_gpu_memory(shape, trainers=n, vllm_gpus=0, rank=0) for n in (1, 6))
    for memory, trainers in ((one, 1), (six, 6)):
        assert memory.adapter == 0
        assert memory.weights + memory.optimizer == pytest.approx(16 * shape.parameters / trainers)
    layer = (shape.parameters - shape.embedding_parameters) / shape.layers
    assert six.gathered == pytest.approx(2 * 2 * (2 * layer + shape.embedding_parameters))
    adapter = estimate_gpu_memory(shape, trainers=6, vllm_gpus=0)
    assert (six.activations, six.logits, six.cache_tokens) == (
        adapter.activations,
        adapter.logits,
        adapter.cache_tokens,
    )
    reference = estimate_gpu_memory(shape, trainers=6, vllm_gpus=0, rank=0, reference=True)
    assert reference.trainer - six.trainer == pytest.approx(4 * shape.parameters / 6)


@pytest.mark.parametrize("option", [["--lora_rank", "0"], ["--lora_rank=0"]])
def test_options_of_the_stage_count_in_the_estimate(option: list[str]) -> None:
    command = ["launch", "online", "--config", RECIPES / "online-1gpu.yaml", "--out", "o", "--dry-run"]
    code, stdout, _ = run(*command, *option)
    assert code == 0
    assert "gradients and Adam 19.2" in stdout  # three times four bytes for 1.72e9 weights
    assert "adapter" not in stdout.partition("# about")[2]
    code, _, stderr = run(*command, "--lora_rank", "-2")
    assert code == 1
    assert "lora_rank is -2, but it must be at least 0" in stderr


def test_a_models_shape_is_read_from_its_folder_regardless_of_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "mine-8b"
    folder.mkdir()
    config = {
        "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "intermediate_size": 128, "vocab_size": 500, "tie_word_embeddings": True,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    code, stdout, _ = run(
        *("launch", "logged", "--config", RECIPES / "demo.yaml", "--model", folder, "--out", "o"),
        *("--dry-run", "--json"),
    )
    assert code == 0
    assert json.loads(stdout)["memory"]["weights"] == 2 * (2 * (12_288 + 3 * 64 * 128 + 128) + 500 * 64 + 64)
    (folder / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ConfigError, match="is not a model configuration"):
        model_shape(str(folder))


@pytest.mark.parametrize("options", [["--rules-url", "http://rules:1/mcp"], ["--rules=http://rules:1/mcp"]])
def test_a_rule_service_in_the_options_is_not_started_again(options: list[str]) -> None:
    planned = commands("online", "--config", RECIPES / "online-1gpu.yaml", *options)
    assert list(planned) == ["the training"]
    assert "8808" not in planned["the training"]


def test_a_rule_service_in_the_recipe_is_not_started_again(tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("model: m\nrules: http://rules:1/mcp\n", encoding="utf-8")
    planned = commands("online", "--config", config)
    assert list(planned) == ["the training"]
    assert "--rules" not in planned["the training"]


def test_a_recipe_without_a_rule_service_gets_one(tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("model: m\nrules: null\n", encoding="utf-8")
    planned = commands("online", "--config", config)
    assert list(planned) == ["the rules", "the training"]
    assert "--rules_url http://127.0.0.1:8808/mcp" in planned["the training"]


def fake_accelerate(folder: Path, code: str) -> dict[str, str]:
    """Returns an environment in which `accelerate launch` runs this code instead."""
    package = folder / "fakes" / "accelerate" / "commands"
    package.mkdir(parents=True)
    for each in (package, package.parent):
        (each / "__init__.py").touch()
    (package / "launch.py").write_text(code, encoding="utf-8")
    return {**os.environ, "PYTHONPATH": f"{package.parents[1]}:{ROOT}"}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux notifies a child when its parent is killed")
def test_killing_a_launch_ends_its_trainer(tmp_path: Path) -> None:
    """As with one process, where `accelerate launch` waits for the trainer and forwards no signal."""
    pid = tmp_path / "pid"
    trainer = (
        f"import os, time, trainer.cli; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(120)"
    )
    environment = fake_accelerate(
        tmp_path, f"import subprocess, sys\nsubprocess.call([sys.executable, '-c', {trainer!r}])\n"
    )
    code = (
        "from pathlib import Path\nfrom trainer.orchestration.launch import Command, run_plan\n"
        "run_plan([Command('the training', ['accelerate', 'launch'])], Path('logs'))\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=environment)
    assert dies_with_parent(owner, pid)


SECRETS = [
    "--hub_token",
    "hf_S3",
    "--hub-token=hf_S3",
    "--rules",
    "http://u:hf_S3@h/mcp?api_key=hf_S3&top_k=1",
]


def test_commands_are_printed_and_recorded_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", fake_accelerate(tmp_path, "")["PYTHONPATH"])
    lines: list[str] = []
    run_plan([Command("the training", ["accelerate", "launch", *SECRETS])], tmp_path, lines.append)
    monkeypatch.setattr("sys.argv", ["bin/ascl-train", "logged", "--max_tokens", "8", *SECRETS])
    record = common_record()["command"]
    for line in (lines[0], record):
        assert "hf_S3" not in line
        assert "--hub_token '<HUB_TOKEN>' '--hub-token=<HUB_TOKEN>' --rules" in line
        assert "http://h/mcp?api_key=...&top_k=1" in line
    assert record.startswith("ascl-train logged --max_tokens 8 --hub_token")


def test_settings_are_recorded_without_secrets() -> None:
    settings = {
        "serve": "vllm serve {model} --port {port} --api-key 'a b'",
        "rules": "https://user:S3@h:1/mcp",
        "train": {"hub_token": "hf_S3", "hub_private_repo": None, "model_init_kwargs": {"token": "hf_S3"}},
        "sampling": {"max_tokens": 32, "prompts": "a b.jsonl"},
    }
    safe = mask_secrets(settings)
    assert "S3" not in json.dumps(safe)
    assert "a b'" not in safe["serve"]
    assert safe["rules"] == "https://h:1/mcp"
    assert safe["train"]["hub_token"] == "<HUB_TOKEN>"
    assert safe["sampling"] == settings["sampling"]
    assert mask_secrets(safe) == safe  # so recorded settings can be compared


def test_the_logged_stage_does_not_shard_the_model() -> None:
    planned = commands("logged", "--config", RECIPES / "demo.yaml", "--model", "m", "--gpus", 8)[
        "the training"
    ]
    assert "--multi_gpu" in planned
    assert "--config_file" not in planned


@pytest.mark.parametrize(("text", "message"), [("- a\n", "contains no settings"), ("a: [\n", "is not YAML")])
def test_the_error_names_an_invalid_recipe(text: str, message: str, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(text, encoding="utf-8")
    code, _, stderr = run("launch", "online", "--config", config, "--out", tmp_path, "--dry-run")
    assert code == 1
    assert message in stderr


def test_a_recipe_is_found_by_its_name_in_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--gpus", 8, "--vllm-gpus", 2)
    by_path = commands("online", "--config", RECIPES / "online-8gpu.yaml", *options)
    monkeypatch.chdir(tmp_path)
    assert commands("online", "--config", "builtin:online-8gpu", *options) == by_path


def test_an_unknown_recipe_is_refused_with_the_known_ones() -> None:
    code, _, stderr = run("loop", "--config", "builtin:lop", "--out", "runs/x")
    assert code == 2
    assert "builtin:loop" in stderr


def test_a_setting_cannot_be_abbreviated() -> None:
    with pytest.raises(ConfigError, match=r"unknown setting 'learning_rat'.*did you mean 'learning_rate'"):
        parse_logged(None, ["--model", "m", "--groups", "g", "--learning_rat", "1e-4"])
