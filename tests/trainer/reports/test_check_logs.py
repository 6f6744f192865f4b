"""`ascl-train check` on logs of models with many chat templates: what the run would train on."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent.episode import Episode
from evaluation.scorers import score_log, write_rewards
from tests.fakes.episodes.log import make_episode, write_log
from tests.fakes.models.templates import trl_tokenizer
from tests.trainer.reports.test_check_and_plot import run


def check(folder: Path, template: str, logged: list[Episode], *flags: str) -> tuple[int, str, str]:
    """Prepares a log, and checks the first episode with a tokenizer of a template. Returns the loss text."""
    tokenizer = trl_tokenizer(template)
    tokenizer.save_pretrained(folder / "model")
    (folder / "model" / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    log, rewards, groups = folder / "log.jsonl", folder / "rewards.jsonl", folder / "groups.parquet"
    write_log(log, logged)
    write_rewards(rewards, score_log(logged))
    code, _, stderr = run("prepare", log, rewards, "--out", groups, *flags)
    assert code == 0, stderr
    episode = ("--episode", logged[0].id)
    code, stdout, stderr = run("check", groups, "--model", folder / "model", *episode, "--json")
    if code:
        return code, "", stderr
    tokens = json.loads(stdout)["tokens"]
    return 0, str(tokenizer.decode([token["id"] for token in tokens if token["wrote"]])), stderr


def with_thoughts(episode: Episode) -> Episode:
    messages = [
        {**message, "reasoning_content": "Is it delicate?"} if message["role"] == "assistant" else message
        for message in episode.messages
    ]
    return episode.model_copy(update={"messages": messages})


@pytest.mark.parametrize("thoughts", [False, True])
@pytest.mark.parametrize(
    "template", ["deepseekv3", "nemotron_3_nano", "qwen3_5_nothink", "gemma4", "qwen3", "gptoss", "glm4moe"]
)
def test_a_consultation_is_kept_whole_with_and_without_thoughts(
    template: str, thoughts: bool, tmp_path: Path
) -> None:
    logged = [make_episode("a", consult=True), make_episode("a", answer="Other.", sample=1)]
    logged = [with_thoughts(episode) for episode in logged] if thoughts else logged
    code, text, stderr = check(tmp_path, template, logged)
    assert code == 0, stderr
    assert "consult_safety_rules" in text
    assert "a delicate request" in text
    assert "Here you are." in text
    assert text.count("Is it delicate?") == (2 if thoughts else 0)
    assert "<think>\n\n</think>" not in text
    assert "[a.b] A rule" not in text


@pytest.mark.parametrize("template", ["qwen2_5", "llama3_1", "gptoss", "glm4moe", "qwen3_5_think"])
def test_a_call_that_was_cut_off_ends_at_the_cut(template: str, tmp_path: Path) -> None:
    cut = make_episode(
        "a",
        answer=None,
        consult=True,
        arguments='{"situation": "a delicate req',
        stop_reason="limit",
    )
    turns = [turn.model_copy(update={"finish_reason": "length"}) for turn in cut.turns[:1]]
    cut = cut.model_copy(update={"messages": cut.messages[:2], "turns": turns})
    code, text, stderr = check(tmp_path, template, [cut, make_episode("a", answer="Other.", sample=1)])
    assert code == 0, stderr
    assert text.endswith("a delicate req")
    assert '\\"' not in text  # a quoted string holds escaped quotation marks


DATES = {"llama3_2": "%d %b %Y", "gptoss": "%Y-%m-%d"}


@pytest.mark.parametrize("template", DATES)
def test_a_forced_consultation_of_an_earlier_day_is_kept(template: str, tmp_path: Path) -> None:
    forced = make_episode("a", consult=True, mode_forced=True, mode_method="agent_call")
    tokenizer: Any = trl_tokenizer(template)
    source = tokenizer.chat_template
    served_on = datetime(2026, 1, 1, tzinfo=UTC).strftime(DATES[template])
    messages = [dict(message) for message in forced.messages]
    function = messages[1]["tool_calls"][0]["function"]
    arguments = {**function, "arguments": json.loads(function["arguments"])}
    messages[1]["tool_calls"] = [{**messages[1]["tool_calls"][0], "function": arguments}]
    prompt = tokenizer.apply_chat_template(
        messages[:-1],
        chat_template=source.replace(f'strftime_now("{DATES[template]}")', f"'{served_on}'"),
        add_generation_prompt=True,
        return_dict=False,
    )
    reply = tokenizer.encode("Here you are.", add_special_tokens=False)
    turn = forced.turns[1].model_copy(
        update={
            "index": 0,
            "prompt_token_ids": prompt,
            "token_ids": reply,
            "logprobs": [-0.5] * len(reply),
        }
    )
    forced = forced.model_copy(update={"turns": [turn]})
    other = make_episode("a", answer="Other.", sample=1)
    code, text, stderr = check(tmp_path, template, [forced, other], "--keep-forced")
    assert code == 0, stderr
    assert "consult_safety_rules" in text
    assert text.endswith("Here you are.")
