"""Token ids and log-probabilities of a real model over HTTP are stored as the model computed them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agent.cli import app
from agent.episode import Episode, read_log
from tests.fakes.endpoints.token_endpoint import TokenEndpoint, consult_call
from tests.fakes.models.tiny_llama import save_tiny_llama
from tests.fakes.rules.scripted import ScriptedRules
from trainer.tokens import episode_tokens

PROMPT = "How do I make a gun?"
MAX_TOKENS = 96


def decides(body: dict[str, Any]) -> str | None:
    """Forces a consultation for even seeds and without a seed; the model generates all other replies."""
    first = body["messages"][-1]["role"] == "user"
    return consult_call("making a gun") if first and body.get("seed", 0) % 2 == 0 else None


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenEndpoint]:
    with TokenEndpoint(save_tiny_llama(tmp_path_factory.mktemp("tiny")), says=decides) as served:
        yield served


def sample_episodes(endpoint: TokenEndpoint, rules: ScriptedRules, folder: Path, *more: str) -> list[Episode]:
    prompts, log = folder / "prompts.jsonl", folder / "log.jsonl"
    prompts.write_text(json.dumps({"id": "p", "prompt": PROMPT, "kind": "harmful"}) + "\n", encoding="utf-8")
    services = ["--base-url", endpoint.base_url, "--model", "tiny", "--rules-url", rules.url]
    settings = ["--samples", "4", "--seed", "0", "--max-tokens", str(MAX_TOKENS), *more]
    result = CliRunner().invoke(
        app, ["run", "--prompts", str(prompts), "--log", str(log), *services, *settings]
    )
    assert result.exit_code == 0, result.output
    return read_log(log).episodes


def model_logprobs(endpoint: TokenEndpoint, prompt_ids: list[int], ids: list[int]) -> list[float]:
    """Returns the model's log-probabilities of these tokens, computed in one forward pass."""
    import torch

    with torch.inference_mode():
        logits = endpoint.model(input_ids=torch.tensor([prompt_ids + ids])).logits[
            0, len(prompt_ids) - 1 : -1
        ]
    scores = logits.log_softmax(-1)
    return [float(scores[at, token]) for at, token in enumerate(ids)]


def check(endpoint: TokenEndpoint, episode: Episode) -> None:
    """Checks that every turn holds its prompt and reply ids with the model's log-probabilities."""
    replies = [at for at, message in enumerate(episode.messages) if message["role"] == "assistant"]
    for turn, at in zip(episode.turns, replies, strict=True):
        assert turn.prompt_token_ids == endpoint._prompt(
            {"messages": episode.messages[:at], "tools": episode.tools}
        )
        assert turn.token_ids
        assert turn.logprobs is not None
        stored = [entry["logprob"] for entry in turn.logprobs["content"]]
        assert stored == pytest.approx(
            model_logprobs(endpoint, turn.prompt_token_ids, turn.token_ids), abs=1e-4, rel=0
        )
        assert turn.usage is not None
        assert turn.usage["completion_tokens"] == len(turn.token_ids)
        text = endpoint.tokenizer.decode(turn.token_ids, skip_special_tokens=True)
        if calls := episode.messages[at].get("tool_calls"):
            assert calls[0]["function"]["arguments"] in text
        else:
            assert episode.messages[at]["content"] == text


def test_stored_ids_and_log_probabilities_are_the_model_logprobs(
    endpoint: TokenEndpoint, rules: ScriptedRules, tmp_path: Path
) -> None:
    episodes = sample_episodes(endpoint, rules, tmp_path, "--provider", "vLLM", "--temperature", "0.7")
    modes = {(episode.sample_index, episode.mode, len(episode.turns)) for episode in episodes}
    assert modes == {(0, "consult", 2), (1, "direct", 1), (2, "consult", 2), (3, "direct", 1)}
    for episode in episodes:
        check(endpoint, episode)
        tokens = episode_tokens(
            endpoint.tokenizer, episode.messages, episode.tools, [t.model_dump() for t in episode.turns]
        )
        assert tokens.prompt_ids == episode.turns[0].prompt_token_ids
        assert sum(tokens.loss_mask) == sum(len(turn.token_ids or ()) for turn in episode.turns)
        assert tokens.logprobs is not None


def test_a_streamed_conversation_stores_the_same(
    endpoint: TokenEndpoint, rules: ScriptedRules, tmp_path: Path
) -> None:
    log = tmp_path / "chat.jsonl"
    services = [
        "--base-url",
        endpoint.base_url,
        "--model",
        "tiny",
        "--rules-url",
        rules.url,
        "--provider",
        "vllm",
    ]
    result = CliRunner().invoke(
        app, ["chat", PROMPT, *services, "--max-tokens", str(MAX_TOKENS), "--log", str(log)]
    )
    assert result.exit_code == 0, result.output
    (episode,) = read_log(log).episodes
    assert (episode.mode, len(episode.turns)) == ("consult", 2)
    check(endpoint, episode)


def test_an_unknown_endpoint_is_not_asked_for_token_ids(
    endpoint: TokenEndpoint, rules: ScriptedRules, tmp_path: Path
) -> None:
    request_count = len(endpoint.requests)
    episodes = sample_episodes(endpoint, rules, tmp_path)
    for body in endpoint.requests[request_count:]:
        assert not {"logprobs", "return_token_ids"} & set(body)
    for turn in (turn for episode in episodes for turn in episode.turns):
        assert (turn.prompt_token_ids, turn.token_ids, turn.logprobs) == (None, None, None)


def test_a_probe_detects_token_ids_and_log_probabilities(endpoint: TokenEndpoint) -> None:
    result = CliRunner().invoke(app, ["probe", endpoint.base_url, "--json"])
    row = json.loads(result.stdout)
    assert (row["name"], row["token_ids"], row["logprobs"], row["stream_usage"]) == (
        "vLLM",
        "yes",
        "yes",
        "yes",
    )
