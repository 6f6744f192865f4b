"""The command `ascl-train logged` on a tiny random model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from agent.episode import Episode
from evaluation.scorers import score_log, write_rewards
from tests.fakes.episodes.log import make_episode, write_log
from tests.fakes.models.tiny_llama import save_tiny_llama
from trainer.cli import app
from trainer.errors import ConfigError
from trainer.stages.logged.config import parse_logged
from trainer.stages.online.config import parse_online

REFUSAL = "I can't help with that."
FAST = ("--learning_rate", "0.01", "--per_device_train_batch_size", "2", "--lora_layers", "2")


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("tiny"))


def episodes() -> list[Episode]:
    """Three groups: harmless, where answering directly earns more; harmful, where consulting does; equal
    rewards."""
    return [
        make_episode("a", "benign_plain", REFUSAL, sample=0, consult=True),
        make_episode("a", "benign_plain", REFUSAL, sample=1, consult=True),
        make_episode("a", "benign_plain", "Here is how.", sample=2),
        make_episode("b", "harmful", REFUSAL, sample=0, consult=True),
        make_episode("b", "harmful", "Here is how.", sample=1),
        make_episode("c", "benign_plain", "Equal.", sample=0),
        make_episode("c", "benign_plain", "Equal.", sample=1, consult=True),
    ]


def grouped(folder: Path, logged: list[Episode]) -> Path:
    log = write_log(folder / "log.jsonl", logged)
    write_rewards(folder / "rewards.jsonl", score_log(logged))
    code, *_ = run(
        "prepare", log, folder / "rewards.jsonl", "--out", folder / "groups.parquet", "--overwrite"
    )
    assert code == 0
    return folder / "groups.parquet"


def decision_gap(model: Path, user: str) -> float:
    """Returns the log-probability of opening a call minus that of beginning the direct answer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": user}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.no_grad():
        scores = AutoModelForCausalLM.from_pretrained(model, dtype="float32")(**ids).logits[0, -1]
    call, direct = (tokenizer.encode(text)[0] for text in ("<tool_call>", "Here"))
    return float((scores[call] - scores[direct]).item())


@pytest.mark.parametrize("method", ["ifpo", "grpo", "grpo+cost"])
def test_training_moves_the_decision_towards_the_better_mode(
    method: str, model: Path, tmp_path: Path
) -> None:
    groups, out = grouped(tmp_path, episodes()[:3]), tmp_path / "out"
    code, stdout, stderr = run(
        "logged", "--model", model, "--groups", groups, "--out", out, "--method", method, *FAST,
        "--num_train_epochs", "4", *(("--cost", "0.1") if method == "grpo+cost" else ()),
    )  # fmt: skip
    assert code == 0, stderr
    assert f"{method} on 3 episodes" in stdout
    assert decision_gap(out / "merged", "prompt a") < decision_gap(model, "prompt a") - 0.1
    assert (out / "adapter" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize(
    ("kind", "prompt", "chosen", "way"),
    [("benign_plain", "prompt a", slice(0, 3), -1), ("harmful", "prompt b", slice(3, 5), 1)],
)
def test_the_record_states_by_kind_how_the_decision_moves(
    kind: str, prompt: str, chosen: slice, way: int, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    code, _, stderr = run(
        "logged", "--model", model, "--groups", grouped(tmp_path, episodes()[chosen]), "--out", out, *FAST,
        "--num_train_epochs", "4",
    )  # fmt: skip
    assert code == 0, stderr
    steps = json.loads((out / "run.json").read_text(encoding="utf-8"))["steps"]
    shifts = [step[f"logged/towards_consulting/{kind}"] for step in steps]
    assert shifts[0] == pytest.approx(0, abs=1e-6)  # step 1 sees the starting weights
    assert way * shifts[-1] > 0.1
    assert way * (decision_gap(out / "merged", prompt) - decision_gap(model, prompt)) > 0.1


def test_the_record_states_the_data_and_that_the_log_was_text_only(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, _, stderr = run(
        "logged", "--model", model, "--groups", grouped(tmp_path, episodes()), "--out", out, *FAST
    )
    assert code == 0, stderr
    record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert record["data"]["episodes"] == 5
    assert record["data"]["left_out"] == {"no advantage": 2}
    assert record["off_policy"] == {
        "text_only_episodes": 5,
        "forced_episodes": 0,
        "behaviour_logprobs": "recomputed with the starting checkpoint",
        "largest_difference": None,
    }
    assert record["steps"][0]["logged/kl"] == pytest.approx(0, abs=1e-6)  # step 1 sees the starting weights
    assert record["steps"][-1]["logged/kl"] > 0
    assert record["steps"][0].keys() >= {"loss", "grad_norm", "reward", "reward_std", "entropy"}
    assert "the log has no log-probabilities" in stderr


def test_logged_log_probabilities_are_the_denominator_of_the_ratios(model: Path, tmp_path: Path) -> None:
    """The log-probabilities are those of a policy under which every token is e times likelier."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForCausalLM.from_pretrained(model, dtype="float32")
    logged = []
    for sample, answer in enumerate([REFUSAL, "Here is how."]):
        prompt, reply = tokenizer.encode("Hello"), tokenizer.encode(answer)
        with torch.no_grad():
            scores = network(torch.tensor([prompt + reply])).logits[0].log_softmax(-1)
        logprobs = [scores[len(prompt) + i - 1, token].item() + 1 for i, token in enumerate(reply)]
        episode = make_episode("a", answer=answer, sample=sample)
        turn = episode.turns[0].model_copy(
            update={"prompt_token_ids": prompt, "token_ids": reply, "logprobs": logprobs}
        )
        logged.append(episode.model_copy(update={"turns": [turn]}))
    out = tmp_path / "out"
    command = ("logged", "--model", model, "--groups", grouped(tmp_path, logged), "--out", out, *FAST)
    code, _, stderr = run(*command)
    assert code == 1
    assert "2 of 2 episodes differ by more than 0.1 nats per token, at most 1.00" in stderr
    code, _, stderr = run(*command, "--behaviour", "other")
    assert code == 0, stderr
    record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert record["off_policy"]["behaviour_logprobs"] == "logged"
    assert record["steps"][0]["logged/largest_ratio"] == pytest.approx(torch.e**-1, rel=1e-4)
    assert record["steps"][0]["logged/kl"] == pytest.approx(torch.e**-1 - 1 + 1, rel=1e-3)


def test_the_same_groups_and_seed_give_the_same_weights(model: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    groups = grouped(tmp_path, episodes())
    for name in ("one", "two"):
        run("logged", "--model", model, "--groups", groups, "--out", tmp_path / name, *FAST)
    one, two = (
        load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("one", "two")
    )
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_step_is_the_same_in_one_batch_or_row_by_row(model: Path, tmp_path: Path) -> None:
    """Rows of very different lengths, padded to each other in one case and not at all in the other."""
    from safetensors.torch import load_file

    answers = ["No.", "Here is how. " * 9, "Here.", REFUSAL * 3]
    logged = [
        make_episode("a", "benign_plain", text, sample=n, consult=n % 2 == 1)
        for n, text in enumerate(answers)
    ]
    groups, weights = grouped(tmp_path, logged), []
    for batch, steps in ((4, 1), (1, 4)):
        out = tmp_path / f"batch-{batch}"
        code, _, stderr = run(
            "logged", "--model", model, "--groups", groups, "--out", out, "--lora_layers", "2",
            "--per_device_train_batch_size", batch, "--gradient_accumulation_steps", steps,
            "--learning_rate", "0.01", "--max_length", "2000", "--optim", "sgd",
        )  # fmt: skip
        assert code == 0, stderr
        weights.append(load_file(out / "adapter" / "adapter_model.safetensors"))
    for name, value in weights[0].items():
        assert torch.allclose(value, weights[1][name], atol=1e-5), name
    assert any(bool(value.any()) for name, value in weights[0].items() if "lora_B" in name)  # weights changed


def test_an_episode_over_the_length_limit_is_left_out_and_counted(model: Path, tmp_path: Path) -> None:
    long = make_episode("a", "benign_plain", "Here is a word. " * 100, sample=9)
    out = tmp_path / "out"
    code, *_ = run(
        "logged", "--model", model, "--groups", grouped(tmp_path, [*episodes(), long]), "--out", out, *FAST,
        "--max_length", "300",
    )  # fmt: skip
    assert code == 0
    record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert record["data"]["left_out"] == {"longer than 300 tokens": 1, "no advantage": 2}


def run_refused(
    model: Path | str, folder: Path, *options: str, config: str | None = None, **expected: Any
) -> str:
    groups = folder / "groups.parquet"
    if not groups.exists():
        grouped(folder, expected.get("logged") or episodes())
    more: list[object] = list(options)
    if config is not None:
        (folder / "run.yaml").write_text(config, encoding="utf-8")
        more += ["--config", folder / "run.yaml"]
    code, _, stderr = run("logged", "--model", model, "--groups", groups, "--out", folder / "out", *more)
    assert code == 1
    assert "Traceback" not in stderr
    assert not (folder / "out" / "run.json").exists()
    return stderr


def test_an_unknown_setting_is_refused_and_the_nearest_one_suggested(model: Path, tmp_path: Path) -> None:
    assert "'learnin_rate'" in run_refused(model, tmp_path, config="learnin_rate: 1\n")
    assert "did you mean 'learning_rate'?" in run_refused(model, tmp_path, "--learnin_rate", "1")


def test_an_invalid_value_or_settings_file_is_refused(model: Path, tmp_path: Path) -> None:
    assert "invalid float value: 'fast'" in run_refused(model, tmp_path, config="learning_rate: fast\n")
    assert "is not valid YAML" in run_refused(model, tmp_path, config="a: [\n")
    assert "must contain a YAML mapping" in run_refused(model, tmp_path, config="- a\n")
    assert "pass it to `ascl-train prepare`" in run_refused(model, tmp_path, config="alpha: 0\n")
    assert "a cost requires grpo+cost" in run_refused(model, tmp_path, config="cost: 0.1\n")
    assert "cannot be resumed exactly" in run_refused(
        model, tmp_path, config="num_iterations: 2\nsave_strategy: epoch\n"
    )


def test_a_missing_model_is_refused(tmp_path: Path) -> None:
    assert "is not a model folder" in run_refused(tmp_path, tmp_path)


def test_a_log_of_two_temperatures_is_refused(model: Path, tmp_path: Path) -> None:
    warm = [
        make_episode("w", "benign_plain", answer, sample=sample, sampling_sent={"temperature": 0.7})
        for sample, answer in enumerate([REFUSAL, "Here is how."])
    ]
    expected = run_refused(model, tmp_path, logged=episodes() + warm)
    assert "sampled at the temperatures 0.7, 1.0" in expected


def test_a_log_of_two_policies_is_refused_unless_behaviour_is_other(model: Path, tmp_path: Path) -> None:
    later = [
        make_episode("w", "benign_plain", answer, sample=sample, policy_version="later", sampling_sent={})
        for sample, answer in enumerate([REFUSAL, "Here is how."])
    ]
    expected = run_refused(model, tmp_path, "--max_steps", "1", logged=episodes() + later)
    assert "sampled by the policies later, start" in expected
    named = ("--model", model, "--groups", tmp_path / "groups.parquet", "--out", tmp_path / "out")
    code, _, stderr = run("logged", *named, *FAST, "--max_steps", "1", "--behaviour", "other")
    assert code == 0, stderr
    assert "2 episodes were sampled without a temperature: 1 is assumed" in stderr


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--scale_rewards none", "scale_rewards has no effect on logged episodes, whose advantages"),
        ("--temperature 0.3", "temperature has no effect on logged episodes, which were sampled"),
        ("--top_p 0.5", "top_p has no effect"),
        ("--use_vllm true", "use_vllm has no effect"),
        ("--num_generations 5", "num_generations is 5, but the log determines the size of"),
        (
            "--per_device_train_batch_size 1",
            "the batch holds one episode, but TRL's trainer needs",
        ),
        ("foo", "'foo' does not belong to a setting: pass settings as --name value"),
    ],
)
def test_a_setting_without_effect_is_refused(options: str, expected: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        parse_logged(None, ["--model", "m", "--groups", "g", "--output_dir", "o", *options.split()])
    assert expected in str(refusal.value)


def test_a_file_with_only_groups_of_equal_rewards_is_refused(model: Path, tmp_path: Path) -> None:
    equal = [make_episode("c", sample=0), make_episode("c", sample=1, consult=True)]
    assert "so there is nothing to learn" in run_refused(model, tmp_path, logged=equal)


def test_an_invalid_choice_in_a_settings_file_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "train.yaml"
    config.write_text("model: m\ngroups: g\noutput_dir: o\nmethod: nope\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="method is 'nope', but it must be one of ifpo, grpo, grpo\\+cost"):
        parse_logged(config, [])


def test_an_online_run_without_a_rule_service_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "online.yaml"
    config.write_text("model: m\noutput_dir: o\nrules: null\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="no rule service is given: set rules"):
        parse_online(config, [])
