"""Prompts after given messages through the commands: sampled, scored, grouped and trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from trl import GRPOTrainer
from typer.testing import CliRunner

from agent.cli import app as agent_app
from evaluation.cli.app import app as evaluation_app
from tests.fakes.endpoints.scripted import ScriptedEndpoint, call
from tests.fakes.models.tiny_llama import save_tiny_llama
from tests.fakes.rules.scripted import ScriptedRules
from trainer.cli import app as trainer_app
from trainer.groups.parquet import read_groups

EARLIER = "EARLIER ANSWER"
HISTORY: list[dict[str, Any]] = [
    {"role": "user", "content": "Read my page."},
    call(arguments='{"url": "page.html"}', id="c1", name="open_page"),
    {"role": "tool", "tool_call_id": "c1", "content": "A page about locks."},
    {"role": "assistant", "content": EARLIER},
]
OTHER = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": EARLIER}]
PROMPTS = [
    {"id": "page", "kind": "harmful", "messages": HISTORY, "prompt": "And how?"},
    {"id": "hello", "kind": "harmful", "messages": [*OTHER, {"role": "user", "content": "And how?"}]},
]


def run(app: Any, *arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("tiny"))


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


class EverySecond:
    """Consults and refuses in every second episode, and answers the others."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, body: dict[str, Any]) -> Any:
        if body["messages"][-1]["role"] == "tool":
            return "I can't help with that."
        self.asked += 1
        return call("a question", id="c2") if self.asked % 2 else "Sure: first, take what you need."


def test_samples_after_given_messages_are_one_group_and_trained_on(model: Path, tmp_path: Path) -> None:
    log, rewards, groups = (tmp_path / name for name in ("log.jsonl", "rewards.jsonl", "groups.parquet"))
    with ScriptedEndpoint(otherwise=EverySecond()) as endpoint, ScriptedRules() as rules:
        code, *_ = run(
            agent_app,
            *("run", "--prompts", write(tmp_path / "p.jsonl", *PROMPTS), "--samples", 4, "--log", log),
            *("--base-url", endpoint.base_url, "--model", "scripted", "--rules", rules.url),
        )
    assert code == 0
    assert run(evaluation_app, "score", log, "--out", rewards)[0] == 0
    code, out, _ = run(trainer_app, "prepare", log, rewards, "--out", groups, "--json")
    prepared = json.loads(out)
    assert (code, prepared["episodes"], prepared["groups"], prepared["left_out"]) == (0, 8, 2, {})
    columns, _ = read_groups(groups, ["prompt_id", "group_id", "given_messages", "mode"])
    given = set(zip(columns["prompt_id"], columns["given_messages"], strict=True))
    assert given == {("page", 6), ("hello", 4)}
    assert columns["mode"].count("consult") == 4  # the call in the given history is none
    code, _, err = run(
        trainer_app,
        *("logged", "--model", model, "--groups", groups, "--out", tmp_path / "out", "--method", "ifpo"),
        *("--lora_layers", 2, "--max_length", 6000, "--max_steps", 1),
    )
    assert code == 0, err
    record = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))
    assert record["data"]["episodes"] == 8
    shown = run(trainer_app, "check", groups, "--model", model, "--json")
    assert shown[0] == 0, shown[2]
    tokens = json.loads(shown[1])["tokens"]
    assert EARLIER in "".join(token["text"] for token in tokens)
    assert EARLIER not in "".join(token["text"] for token in tokens if token["wrote"])


def test_online_training_continues_given_messages(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts_seen: list[str] = []

    def generate(self: Any, prompt_ids: Any, *args: Any, **kwargs: Any) -> tuple[Any, None]:
        prompts_seen.extend(self._tokenizer.decode(ids) for ids in prompt_ids)
        texts = ["I can't help with that." if n % 2 else "Here is how." for n in range(len(prompt_ids))]
        return [[*self._tokenizer.encode(text), self._tokenizer.eos_token_id] for text in texts], None

    monkeypatch.setattr(GRPOTrainer, "_generate_single_turn", generate)
    with ScriptedRules() as rules:
        code, _, err = run(
            trainer_app,
            *("online", "--model", model, "--prompts", write(tmp_path / "p.jsonl", *PROMPTS)),
            *("--rules", rules.url, "--out", tmp_path / "out", "--max_steps", 1, "--num_generations", 4),
            *("--per_device_train_batch_size", 8, "--max_completion_length", 100),
        )
    assert code == 0, err
    assert len(prompts_seen) == 8
    for text in prompts_seen:
        assert text.count(EARLIER) == 1
        assert text.index(EARLIER) < text.index("And how?")
        # Arguments are an object in the template, not JSON in JSON, and absent fields are not shown.
        assert "None" not in text
        assert ('{"url": "page.html"}' in text) == ("A page about locks." in text)
    record = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))
    assert record["steps"][0]["reward"] == 0.5


def test_online_training_refuses_a_script(model: Path, tmp_path: Path) -> None:
    prompts = write(tmp_path / "p.jsonl", {"id": "a", "kind": "harmful", "user_turns": ["Hi.", "How?"]})
    with ScriptedRules() as rules:
        code, _, err = run(
            trainer_app,
            *("online", "--model", model, "--prompts", prompts, "--rules", rules.url),
            *("--out", tmp_path / "out", "--max_steps", 1),
        )
    assert code == 1
    assert "'a' is a script of 2 user turns, which only `ascl-eval run` and `ascl-agent run` play" in err
