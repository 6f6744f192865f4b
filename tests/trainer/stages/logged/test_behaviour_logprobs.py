"""Log-probabilities of the behaviour policy: those of the same checkpoint agree, others are detected."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agent.cli.app import app as agent
from agent.episode import Episode, read_log
from evaluation.scorers import Reward, write_rewards
from evaluation.scorers.rewards import Scores
from tests.fakes.endpoints.token_endpoint import TokenEndpoint, consult_call
from tests.fakes.episodes.log import write_log
from tests.fakes.models.tiny_llama import save_tiny_llama
from tests.fakes.rules.scripted import ScriptedRules
from trainer.cli import app
from trainer.tokens import episode_tokens

FAST = ("--per_device_train_batch_size", "4", "--lora_layers", "2", "--max_length", "2000")


def decides(body: dict[str, Any]) -> str | None:
    """Consults for even seeds; the model writes all else."""
    first = body["messages"][-1]["role"] == "user"
    return consult_call("making a gun") if first and body.get("seed", 0) % 2 == 0 else None


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def episodes(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Episode]]:
    """Four episodes of one prompt with token ids, sampled by the agent from the model over HTTP."""
    folder = tmp_path_factory.mktemp("log")
    prompts, log = folder / "prompts.jsonl", folder / "log.jsonl"
    row = {"id": "p", "prompt": "How do I make a gun?", "kind": "harmful"}
    prompts.write_text(json.dumps(row) + "\n", encoding="utf-8")
    with TokenEndpoint(model, says=decides) as endpoint, ScriptedRules() as rules:
        services = ["--base-url", endpoint.base_url, "--model", "tiny", "--rules-url", rules.url]
        settings = ["--samples", "4", "--seed", "0", "--max-tokens", "96", "--provider", "vLLM"]
        result = CliRunner().invoke(
            agent, ["run", "--prompts", str(prompts), "--log", str(log), *services, *settings]
        )
        assert result.exit_code == 0, result.output
        yield read_log(log).episodes


def train(model: Path, folder: Path, logged: list[Episode], *options: str) -> tuple[int, str, Any]:
    """Trains on episodes with different rewards; returns the exit code, the output and the record."""
    log = write_log(folder / "log.jsonl", logged)
    write_rewards(
        folder / "rewards.jsonl",
        [
            Reward(
                episode_id=each.id,
                kind=each.kind,
                mode=each.mode,
                label=None,
                scores=Scores(outcome=float(n % 3 == 0), format=0.0),
                total=float(n % 3 == 0),
            )
            for n, each in enumerate(logged)
        ],
    )
    groups, out = folder / "groups.parquet", folder / "out"
    cli = CliRunner()
    rewards_path = str(folder / "rewards.jsonl")
    prepared = cli.invoke(app, ["prepare", str(log), rewards_path, "--out", str(groups), "--keep-forced"])
    assert prepared.exit_code == 0, prepared.output
    result = cli.invoke(
        app, ["logged", "--model", str(model), "--groups", str(groups), "--out", str(out), *FAST, *options]
    )
    record = out / "run.json"
    return result.exit_code, result.output, json.loads(record.read_text()) if record.exists() else None


def test_a_log_of_the_same_checkpoint_agrees_and_its_first_ratio_is_one(
    model: Path, episodes: list[Episode], tmp_path: Path
) -> None:
    assert {episode.mode for episode in episodes} == {"consult", "direct"}
    code, output, record = train(model, tmp_path, episodes, "--logprob_tolerance", "1e-3")
    assert code == 0, output
    assert record["off_policy"]["behaviour_logprobs"] == "logged"
    assert record["off_policy"]["largest_difference"] < 1e-3
    assert record["steps"][0]["logged/largest_ratio"] == pytest.approx(1, abs=1e-3)


def test_a_forced_episode_with_log_probabilities_does_not_count_as_text_only(
    model: Path, episodes: list[Episode], tmp_path: Path
) -> None:
    direct = next(episode for episode in episodes if episode.mode == "direct")
    forced = direct.model_copy(update={"mode_forced": True, "mode_method": "resample"})
    logged = [forced if episode is direct else episode for episode in episodes]
    code, output, record = train(model, tmp_path, logged, "--max_steps", "1")
    assert code == 0, output
    assert record["off_policy"]["text_only_episodes"] == 0
    assert record["off_policy"]["forced_episodes"] == 1
    assert record["off_policy"]["behaviour_logprobs"] == "logged"
    assert "the log has no log-probabilities" not in output


@pytest.mark.parametrize("value", [-9999.0, -60.0, 0.5])
def test_an_impossible_log_probability_leaves_its_episode_out_and_names_the_token(
    value: float, model: Path, episodes: list[Episode], tmp_path: Path
) -> None:
    logged = list(episodes)
    turn = logged[1].turns[0]
    assert turn.logprobs
    content = [dict(entry) for entry in turn.logprobs["content"]]
    content[1]["logprob"] = value
    broken = turn.model_copy(update={"logprobs": {"content": content}})
    logged[1] = logged[1].model_copy(update={"turns": [broken, *logged[1].turns[1:]]})
    code, output, record = train(model, tmp_path, logged, "--max_steps", "1")
    assert code == 0, output
    assert record["data"]["left_out"] == {"a log-probability that no sampler gives": 1}
    assert f"episode {logged[1].id}: token 1 of the completion, " in output
    assert f"has the log-probability {value:g}" in output
    assert record["steps"][0]["logged/largest_ratio"] == pytest.approx(1, abs=1e-3)


def test_log_probabilities_of_other_episodes_are_detected(
    model: Path, episodes: list[Episode], tmp_path: Path
) -> None:
    shuffled = []
    for episode, other in zip(episodes, [*episodes[2:], *episodes[:2]], strict=True):
        turns = []
        for turn in episode.turns:
            theirs = other.turns[0]
            assert turn.logprobs
            assert theirs.logprobs
            content, given = turn.logprobs["content"], theirs.logprobs["content"]
            mixed = [{**own, "logprob": given[i % len(given)]["logprob"]} for i, own in enumerate(content)]
            turns.append(turn.model_copy(update={"logprobs": {"content": mixed}}))
        shuffled.append(episode.model_copy(update={"turns": turns}))
    code, output, record = train(model, tmp_path, shuffled, "--logprob_tolerance", "1e-3")
    assert code == 1
    assert "the log's log-probabilities are not this model's" in output
    assert "belong to other episodes" in output
    assert record is None


def test_another_checkpoint_than_the_one_that_sampled_is_detected(
    model: Path, episodes: list[Episode], tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    other = AutoModelForCausalLM.from_pretrained(model, dtype="float32")
    with torch.no_grad():
        for weights in other.parameters():
            weights.mul_(3)
    other.save_pretrained(tmp_path / "other")
    AutoTokenizer.from_pretrained(model).save_pretrained(tmp_path / "other")
    code, output, _ = train(tmp_path / "other", tmp_path, episodes)
    assert code == 1
    assert "4 of 4 episodes differ" in output
    assert "Pass the checkpoint that sampled" in output


def test_ids_of_another_tokenizer_are_counted(model: Path, episodes: list[Episode], tmp_path: Path) -> None:
    modified = []
    for episode in episodes:
        turns = [
            turn.model_copy(update={"token_ids": [100_000 + t for t in turn.token_ids or []]})
            for turn in episode.turns
        ]
        modified.append(episode.model_copy(update={"turns": turns}))
    code, output, _ = train(model, tmp_path, modified)
    assert code == 1
    assert "tokens of another tokenizer" in output


def test_a_call_written_by_the_agent_is_masked_except_for_its_decision(model: Path, tmp_path: Path) -> None:
    """The agent samples a stratified group; the log has the token ids of the endpoint."""
    prompts, log = tmp_path / "prompts.jsonl", tmp_path / "sampled.jsonl"
    row = {"id": "p", "prompt": "How do I make a gun?", "kind": "harmful"}
    prompts.write_text(json.dumps(row) + "\n", encoding="utf-8")
    with TokenEndpoint(model) as endpoint, ScriptedRules() as rules:
        services = ["--base-url", endpoint.base_url, "--model", "tiny", "--rules-url", rules.url]
        settings = ["--samples", "4", "--seed", "0", "--max-tokens", "24", "--provider", "vLLM"]
        shares = ["--mode-share", "consult=0.5"]
        result = CliRunner().invoke(
            agent, ["run", "--prompts", str(prompts), "--log", str(log), *services, *settings, *shares]
        )
        assert result.exit_code == 0, result.output
    logged = read_log(log).episodes
    forced = [episode for episode in logged if episode.mode_forced]
    assert [episode.mode_method for episode in forced] == ["agent_call"] * 2
    tokenizer = endpoint.tokenizer
    for episode in forced:
        turns = [turn.model_dump() for turn in episode.turns]
        tokens = episode_tokens(tokenizer, episode.messages, episode.tools, turns, forced=True)
        first, last = tokens.decision
        opening = '<tool_call>\n{"name": "consult_safety_rules'
        assert tokenizer.decode(tokens.completion_ids[first:last]).rstrip('"') == opening
        reply = turns[0]["token_ids"]
        in_loss = [i for i, here in enumerate(tokens.loss_mask) if here]
        assert in_loss == [
            *range(first, last),
            *range(len(tokens.loss_mask) - len(reply), len(tokens.loss_mask)),
        ]
        assert tokens.prompt_ids + tokens.completion_ids == turns[0]["prompt_token_ids"] + reply
