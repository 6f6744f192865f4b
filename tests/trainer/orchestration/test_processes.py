"""Runs on two processes, and a loop that is killed at random: real commands and servers, tiny models."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from transformers import AutoTokenizer

from evaluation.scorers import score_log, write_rewards
from tests.fakes.endpoints.serve_vllm import Policy, app, install
from tests.fakes.endpoints.token_endpoint import consult_call
from tests.fakes.episodes.log import make_episode, write_log
from tests.fakes.models.tiny_llama import save_tiny_llama
from tests.fakes.models.tiny_qwen3 import save_tiny_qwen3
from tests.fakes.processes.live_server import LiveServer
from tests.fakes.rules.scripted import ScriptedRules
from trainer.orchestration import serve_model

ROOT = Path(__file__).resolve().parents[3]
REFUSAL = "I can't help with that."

pytestmark = pytest.mark.slow


@pytest.fixture
def rules() -> Iterator[ScriptedRules]:
    with ScriptedRules() as service:
        yield service


def train(*arguments: object, check: bool = True, packages: Path = ROOT) -> subprocess.CompletedProcess[str]:
    process = subprocess.run(
        [sys.executable, "-m", "trainer.cli", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{packages}:{ROOT}", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert not check or process.returncode == 0, process.stderr[-3000:]
    return process


def test_logged_episodes_are_distributed_over_two_processes(tmp_path: Path) -> None:
    model = save_tiny_qwen3(tmp_path / "model")
    episodes = [
        make_episode(prompt, kind, REFUSAL if n % 2 == 0 else "Here is how.", sample=n, consult=n % 2 == 0)
        for prompt, kind in (("a", "benign_plain"), ("b", "harmful"))
        for n in range(4)
    ]
    log = write_log(tmp_path / "log.jsonl", episodes)
    write_rewards(tmp_path / "rewards.jsonl", score_log(episodes))
    groups, config = tmp_path / "groups.parquet", tmp_path / "run.yaml"
    train("prepare", log, tmp_path / "rewards.jsonl", "--out", groups)
    config.write_text("per_device_train_batch_size: 2\nnum_train_epochs: 1\n", encoding="utf-8")
    process = train(
        *("launch", "logged", "--config", config, "--model", model, "--groups", groups, "--max_length", 2000),
        *("--gpus", 0, "--processes", 2, "--out", tmp_path / "out"),
    )
    record = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))
    assert len(record["steps"]) == 2  # eight episodes, two per process and step
    assert process.stdout.count("ifpo on 8 episodes") == 1  # only one process prints
    assert (tmp_path / "out" / "merged" / "model.safetensors").is_file()


def test_fresh_episodes_are_sampled_by_two_processes(rules: ScriptedRules, tmp_path: Path) -> None:
    model = save_tiny_qwen3(tmp_path / "model")
    config = tmp_path / "run.yaml"
    settings = {
        "prompts": "builtin:train", "max_steps": 1, "per_device_train_batch_size": 2, "num_generations": 4,
        "max_completion_length": 24,
    }  # fmt: skip
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    process = train(
        *("launch", "online", "--config", config, "--model", model, "--rules", rules.url),
        *("--gpus", 0, "--processes", 2, "--out", tmp_path / "out"),
    )
    assert process.stdout.count("ifpo online") == 1
    record = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))
    assert record["steps"][0]["ifpo/consult_rate"] == 0
    assert (tmp_path / "out" / "adapter" / "adapter_model.safetensors").is_file()


def test_only_one_of_two_processes_has_a_turn_after_a_consultation(
    rules: ScriptedRules, tmp_path: Path
) -> None:
    """vLLM consults about one prompt, whose four episodes lie on one process, and not about the other one."""
    model = save_tiny_qwen3(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(model)
    prompts = tmp_path / "prompts.jsonl"
    rows = [{"id": text, "prompt": text, "kind": "benign_plain"} for text in ("Boil an egg?", "Bake a loaf?")]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    end = tokenizer.encode("egg?<|im_end|>\n<|im_start|>assistant\n")
    call = [*tokenizer.encode(consult_call("eggs")), tokenizer.eos_token_id]
    install(tmp_path, ROOT)
    settings = {
        "prompts": str(prompts), "max_steps": 2, "per_device_train_batch_size": 4, "num_generations": 4,
        "max_completion_length": 600, "use_vllm": True, "vllm_mode": "server", "use_cpu": True, "bf16": False,
    }  # fmt: skip
    with LiveServer(app("tiny", Policy(replies=[(end, call)], ends=[tokenizer.eos_token_id]))) as server:
        config = tmp_path / "run.yaml"
        config.write_text(yaml.safe_dump({**settings, "vllm_server_base_url": server.origin}))
        train(
            *("launch", "online", "--config", config, "--model", model, "--rules", rules.url),
            *("--gpus", 0, "--processes", 2, "--out", tmp_path / "out"),
            packages=tmp_path / "packages",
        )
    record = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))
    assert [step["ifpo/consult_rate"] for step in record["steps"]] == [0.5, 0.5]
    assert len(rules.consultations) == 2  # equal questions of a step are asked once


def test_a_loop_killed_repeatedly_samples_every_episode_once(rules: ScriptedRules, tmp_path: Path) -> None:
    """Real sampling and training with a scripted model; `kill -9` of all processes at five random times."""
    model = save_tiny_llama(tmp_path / "model")
    settings: dict[str, Any] = {
        "model": str(model),
        "rounds": 2,
        "rules": rules.url,
        "serve": f"{sys.executable} -m tests.fakes.endpoints.serve_scripted {{model}} {{port}}",
        "sampling": {
            "prompts": "builtin:held_out", "samples": 2, "concurrency": 4, "seed": 0
        },
        "floor": None,
        "train": {"learning_rate": 0.001, "max_length": 4000, "save_strategy": "steps", "save_steps": 2},
    }  # fmt: skip
    config, out = tmp_path / "loop.yaml", tmp_path / "loop"
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    command = [sys.executable, "-m", "trainer.cli", "loop", "--config", str(config), "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    rng = random.Random(0)
    for _ in range(5):
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, start_new_session=True, stderr=subprocess.DEVNULL
        )
        time.sleep(rng.uniform(4, 25))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)
    train("loop", "--config", config, "--out", out)
    for number in ("001", "002"):
        lines = (out / "rounds" / number / "episodes.jsonl").read_text(encoding="utf-8").splitlines()
        samples = [(e["prompt_id"], e["sample_index"]) for e in map(json.loads, lines)]
        prompts = (ROOT / "evaluation" / "prompts" / "held_out.jsonl").read_text(encoding="utf-8")
        assert len(samples) == len(set(samples)) == 2 * len(prompts.splitlines())
        assert (out / "rounds" / number / "trained" / "run.json").is_file()
    assert json.loads((out / "loop.json").read_text(encoding="utf-8"))["ended"] == "rounds"


def test_the_merged_model_of_a_stage_can_be_served_with_tools(tmp_path: Path) -> None:
    model = save_tiny_llama(tmp_path / "model")
    episodes = [make_episode("a", answer=REFUSAL, sample=0, consult=True), make_episode("a", sample=1)]
    log = write_log(tmp_path / "log.jsonl", episodes)
    write_rewards(tmp_path / "rewards.jsonl", score_log(episodes))
    train("prepare", log, tmp_path / "rewards.jsonl", "--out", tmp_path / "groups.parquet")
    train("logged", "--model", model, "--groups", tmp_path / "groups.parquet", "--out", tmp_path / "out")
    folder = tmp_path / "out" / "merged"
    assert AutoTokenizer.from_pretrained(folder).response_template
    command = "transformers serve {model} --host 127.0.0.1 --port {port} --device cpu --dtype float32"
    with serve_model(command, str(folder), tmp_path / "server.log") as url:
        request = {
            "model": str(folder),
            "messages": [{"role": "user", "content": "Hello"}],
            "tools": [{"type": "function", "function": {"name": "consult_safety_rules", "parameters": {}}}],
            "max_tokens": 4,
        }
        response = httpx2.post(f"{url}/chat/completions", json=request, timeout=120)
    assert response.status_code == 200, response.text
    assert "choices" in response.text
