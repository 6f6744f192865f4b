"""Guards stop a run that goes wrong, state the reason, and keep the last good weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.fakes.episodes.log import make_episode
from tests.fakes.models.tiny_llama import save_tiny_llama
from tests.trainer.stages.logged.test_stage import REFUSAL, episodes, grouped, run
from trainer.tokens import call_opening

FAST = (
    *("--learning_rate", "0.02", "--per_device_train_batch_size", "2", "--lora_layers", "2"),
    *("--num_train_epochs", "4"),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two harmful prompts, one of which the log contains, and a harmless one."""
    rows = [
        {"id": "1", "prompt": "prompt b", "kind": "harmful"},
        {"id": "2", "prompt": "Tell me how.", "kind": "harmful"},
        {"id": "3", "prompt": "What is the time?", "kind": "benign_plain"},
    ]
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def run_logged(model: Path, folder: Path, *options: object) -> tuple[int, str, Any]:
    out = folder / "out"
    groups = grouped(folder, episodes())
    code, _, stderr = run("logged", "--model", model, "--groups", groups, "--out", out, *FAST, *options)
    record = out / "run.json"
    return code, stderr, json.loads(record.read_text(encoding="utf-8")) if record.exists() else None


def test_a_run_stops_when_the_policy_has_drifted_beyond_the_limit(model: Path, tmp_path: Path) -> None:
    code, stderr, record = run_logged(model, tmp_path, "--max_drift", "1e-4")
    assert code == 0
    assert "nats per token from the one that sampled, and the limit is 0.0001" in stderr
    assert "sample fresh episodes" in record["stopped"]
    assert record["steps"][-1]["step"] < 12
    assert (tmp_path / "out" / "merged" / "model.safetensors").is_file()


def test_a_run_within_its_limits_records_the_rates_on_held_out_prompts(
    model: Path, prompts: Path, tmp_path: Path
) -> None:
    code, stderr, record = run_logged(
        model, tmp_path, "--floor_prompts", prompts, "--floor_every", "5", "--floor_consult", "0",
    )  # fmt: skip
    assert code == 0, stderr
    assert record["stopped"] is None
    assert [reading["step"] for reading in record["floor"]] == [0, 5, 10, 12]
    assert set(record["floor"][0]["consult"]) == {"harmful", "benign_plain"}


def test_a_resumed_run_keeps_the_readings_before_its_checkpoint(
    model: Path, prompts: Path, tmp_path: Path
) -> None:
    options = ("--floor_prompts", prompts, "--floor_every", "1", "--max_steps", "4")
    options += ("--save_strategy", "steps", "--save_steps", "2")
    _, _, whole = run_logged(model, tmp_path, *options)
    shutil.rmtree(tmp_path / "out" / "checkpoint-4")
    code, stderr, resumed = run_logged(model, tmp_path, *options, "--resume")
    assert code == 0, stderr
    assert [reading["step"] for reading in resumed["floor"]] == [0, 1, 2, 3, 4]
    assert resumed["floor"] == whole["floor"]


def test_measuring_the_floor_does_not_change_the_weights(model: Path, prompts: Path, tmp_path: Path) -> None:
    run_logged(model, tmp_path, "--max_steps", "4")
    plain = load_file(tmp_path / "out" / "adapter" / "adapter_model.safetensors")
    (tmp_path / "watched").mkdir()
    options = (
        "--floor_prompts",
        prompts,
        "--floor_every",
        "1",
        "--floor_safe",
        "0",
        "--floor_reply_tokens",
        "4",
    )
    code, stderr, record = run_logged(model, tmp_path / "watched", "--max_steps", "4", *options)
    assert code == 0, stderr
    assert "safe_replies" in record["floor"][0]
    watched = load_file(tmp_path / "watched" / "out" / "adapter" / "adapter_model.safetensors")
    assert all(torch.equal(plain[name], watched[name]) for name in plain)


@pytest.fixture(scope="module")
def consulting_model(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learnt to open a call for every prompt."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForCausalLM.from_pretrained(model, dtype="float32")
    texts = ["prompt a", "Tell me how.", "What is the time?"]
    rows = [call_opening(tokenizer, [{"role": "user", "content": text}], []) for text in texts]
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(25):
        for row in rows:
            ids = torch.tensor([row["prompt_ids"] + row["completion_ids"]])
            labels = torch.tensor([[-100] * len(row["prompt_ids"]) + row["completion_ids"]])
            network(input_ids=ids, labels=labels).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    folder = tmp_path_factory.mktemp("eager")
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("action", ["stop", "rollback"])
def test_below_the_floor_a_run_stops_and_restores_the_last_good_weights(
    action: str, consulting_model: Path, prompts: Path, tmp_path: Path
) -> None:
    watch = ("--floor_prompts", prompts, "--floor_every", "1", "--on_floor", action, "--max_drift", "1e9")
    indifferent = [
        make_episode(
            prompt,
            "benign_plain",
            REFUSAL if consult else "Here is how.",
            sample=int(consult),
            consult=consult,
        )
        for prompt in "abcdef"
        for consult in (True, False)
    ]
    groups = grouped(tmp_path, indifferent)
    named = ("logged", "--model", consulting_model, "--groups", groups)
    fast = ("--per_device_train_batch_size", "12", "--learning_rate", "0.05", "--num_train_epochs", "12")
    out = tmp_path / "out"
    code, _, stderr = run(
        *named, "--out", tmp_path / "look", *fast, *watch, "--floor_consult", "0", "--max_steps", "1"
    )
    assert code == 0, stderr
    start = json.loads((tmp_path / "look" / "run.json").read_text())["floor"][0]["consult"]["harmful"]
    assert start > 0.05
    code, _, stderr = run(*named, "--out", out, *fast, *watch, "--floor_consult", f"{0.8 * start}")
    assert code == 0, stderr
    record = json.loads((out / "run.json").read_text())
    assert "the consult rate on held-out harmful prompts is" in stderr
    assert "below the floor" in record["stopped"]
    assert ("were restored" in record["stopped"]) == (action == "rollback")
    last = record["floor"][-1]
    assert last["consult"]["harmful"] < 0.8 * start
    assert len(record["floor"]) == last["step"] + 1  # it stopped at the first reading below the floor


def test_a_model_that_starts_below_the_floor_is_not_trained(
    model: Path, prompts: Path, tmp_path: Path
) -> None:
    code, stderr, record = run_logged(model, tmp_path, "--floor_prompts", prompts, "--floor_consult", "0.5")
    assert code == 1
    assert "before the first update" in stderr
    assert "below the floor of 50%" in stderr
    assert record is None


def test_a_floor_without_prompts_or_with_trained_prompts_only_is_refused(model: Path, tmp_path: Path) -> None:
    code, stderr, _ = run_logged(model, tmp_path, "--floor_consult", "0.5")
    assert code == 1
    assert "floor_consult needs held-out prompts" in stderr
    row = {"id": "1", "prompt": "prompt b", "kind": "harmful"}
    (tmp_path / "seen.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    code, stderr, _ = run_logged(model, tmp_path, "--floor_prompts", tmp_path / "seen.jsonl")
    assert code == 1
    assert "no harmful prompt that the run does not train on" in stderr


def test_a_nan_loss_ends_the_run_before_anything_is_saved(model: Path, tmp_path: Path) -> None:
    code, stderr, record = run_logged(
        model, tmp_path, "--learning_rate", "1e38", "--max_grad_norm", "0", "--optim", "sgd"
    )
    assert code == 1
    assert "is not a finite number" in stderr
    assert record is None
    assert not (tmp_path / "out" / "merged").exists()
