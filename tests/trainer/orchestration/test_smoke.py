"""`launch --smoke` on the CPU: two trainer processes, and a scripted vLLM over HTTP in place of a GPU's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.fakes.endpoints.serve_vllm import install
from tests.fakes.models.tiny_qwen3 import save_tiny_qwen3
from tests.fakes.rules.scripted import ScriptedRules
from trainer.errors import TrainingError
from trainer.orchestration import describe_smoke
from trainer.orchestration.smoke import smoke_settings

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_steps_run_with_every_process_and_the_sampler_takes_the_weights(tmp_path: Path) -> None:
    model = save_tiny_qwen3(tmp_path / "model")
    install(tmp_path, ROOT)
    config, out = tmp_path / "run.yaml", tmp_path / "out"
    settings = {
        "max_steps": 500, "num_generations": 8, "per_device_train_batch_size": 16, "eval_strategy": "steps",
        "floor_prompts": "builtin:held_out", "floor_consult": 0.6, "use_cpu": True, "bf16": False,
    }  # fmt: skip
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    with ScriptedRules() as rules:
        process = subprocess.run(
            [
                *(sys.executable, "-m", "trainer.cli", "launch", "online", "--smoke", "--config", config),
                *("--model", model, "--rules_url", rules.url, "--out", out),
                *("--gpus", "0", "--vllm-gpus", "1", "--processes", "2"),
            ],
            cwd=ROOT,
            env={
                **os.environ,
                "PYTHONPATH": f"{tmp_path / 'packages'}:{ROOT}",
                "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
                "OMP_NUM_THREADS": "1",
                "HF_HUB_OFFLINE": "1",
            },
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
    assert process.returncode == 0, process.stderr[-3000:]
    assert "smoke run: 2 steps with 2 trainer processes" in process.stderr
    assert "vLLM took the weights 2 times" in process.stderr
    assert (out / "smoke" / "run.json").is_file()
    assert not (out / "run.json").exists()  # the long run can start in the same folder


def test_a_smoke_run_keeps_the_settings_but_not_the_size() -> None:
    settings = {"learning_rate": 1e-5, "max_steps": 200, "floor_prompts": "p", "eval_strategy": "steps"}
    online, logged = (smoke_settings(stage, settings) for stage in ("online", "logged"))
    assert online["learning_rate"] == 1e-5
    assert (online["max_steps"], online["max_completion_length"], online["num_generations"]) == (2, 64, 2)
    assert logged == {"learning_rate": 1e-5, "max_steps": 2, "logging_steps": 1, "save_strategy": "no"}


def test_a_sampler_without_new_weights_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"steps": [{}, {}], "seconds": 3}', encoding="utf-8")
    log = tmp_path / "vllm.log"
    log.write_text('"POST /update_weights HTTP/1.1" 200 OK\n', encoding="utf-8")
    with pytest.raises(TrainingError, match="shows 1 weight updates, not 2"):
        describe_smoke(tmp_path, 6, log)
