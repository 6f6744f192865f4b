"""Templates that print the date are rendered on the day of the episode."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.fakes.episodes.log import make_episode
from tests.fakes.models.templates import trl_tokenizer
from trainer.groups.parquet import template_options_of
from trainer.tokens import EpisodeTokens, TokenError, episode_tokens
from trainer.tokens.chat_template import on_day_of, sampled_options
from trainer.tokens.rendering import render_training_tokens

DATED = {"llama3_2": "%d %b %Y", "gptoss": "%Y-%m-%d", "muse_glimmer": "%Y-%m-%d"}
LOGGED_AT = datetime(2026, 3, 9, 12, tzinfo=UTC)
TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "consult_safety_rules",
            "description": "Looks rules up.",
            "parameters": {"type": "object", "properties": {"situation": {"type": "string"}}},
        },
    }
]


def forced_episode(tokenizer: Any, template: str, served_on: datetime, options: Any) -> EpisodeTokens:
    """Tokenises a forced consultation whose second turn was sampled on a day, with token ids."""
    episode = make_episode(answer="Here is how.", consult=True, mode_forced=True)
    dated = tokenizer.chat_template
    try:
        # The server prints its own day.
        for quote in "\"'":
            call = f"strftime_now({quote}{DATED[template]}{quote})"
            dated = dated.replace(call, f"'{served_on.strftime(DATED[template])}'")
        prompt = tokenizer.apply_chat_template(
            [{**message, "name": "consult_safety_rules"} for message in messages_of(episode)[:-1]],
            tools=TOOLS,
            chat_template=dated,
            add_generation_prompt=True,
            return_dict=False,
        )
    finally:
        pass
    reply = tokenizer.encode("Here is how.", add_special_tokens=False)
    turn = {"prompt_token_ids": prompt, "token_ids": reply, "logprobs": [-0.5] * len(reply)}
    return episode_tokens(tokenizer, episode.messages, TOOLS, [turn], forced=True, template_options=options)


def messages_of(episode: Any) -> list[dict[str, Any]]:
    """Returns the messages as a server hands them to the template."""
    import json

    messages = [dict(message) for message in episode.messages]
    function = messages[1]["tool_calls"][0]["function"]
    arguments = json.loads(function["arguments"])
    messages[1]["tool_calls"] = [
        {**messages[1]["tool_calls"][0], "function": {**function, "arguments": arguments}}
    ]
    return messages


@pytest.mark.parametrize("template", DATED)
@pytest.mark.parametrize("shift", [-1, 0, 1])  # the server's clock may be in another time zone
def test_forced_consultations_of_an_earlier_day_are_trained_on(template: str, shift: int) -> None:
    tokenizer = trl_tokenizer(template)
    options = on_day_of(None, LOGGED_AT.isoformat())
    tokens = forced_episode(tokenizer, template, LOGGED_AT + timedelta(days=shift), options)
    written = [t for t, flag in zip(tokens.completion_ids, tokens.loss_mask, strict=True) if flag]
    assert "consult_safety_rules" in tokenizer.decode(written)
    assert tokenizer.decode(written).endswith("Here is how.")
    with pytest.raises(TokenError, match="tokens that do not match"):
        forced_episode(tokenizer, template, LOGGED_AT + timedelta(days=40), options)


@pytest.mark.parametrize("template", DATED)
def test_text_is_rendered_on_the_day_of_the_episode(template: str) -> None:
    tokenizer = trl_tokenizer(template)
    episode = make_episode(answer="Here is how.")
    options = on_day_of(sampled_options(episode.sampling_sent), episode.started_at)
    turns = [turn.model_dump() for turn in episode.turns]
    tokens = episode_tokens(tokenizer, episode.messages, TOOLS, turns, template_options=options)
    day = datetime(2026, 1, 1, tzinfo=UTC).strftime(DATED[template])
    assert day in tokenizer.decode(tokens.prompt_ids)
    ids, _ = render_training_tokens(tokenizer, episode.messages, TOOLS, options)
    assert day in tokenizer.decode(ids)


def test_a_date_that_the_sampler_sent_takes_precedence() -> None:
    tokenizer = trl_tokenizer("llama3_2")
    episode = make_episode(answer="Here is how.")
    sampling = {"chat_template_kwargs": {"date_string": "1 May 1999"}}
    options = on_day_of(sampled_options(sampling), episode.started_at)
    tokens = episode_tokens(tokenizer, episode.messages, TOOLS, [{}], template_options=options)
    assert "Today Date: 1 May 1999" in tokenizer.decode(tokens.prompt_ids)


@pytest.mark.parametrize("started_at", [None, "", "yesterday"])
def test_an_unknown_day_is_no_fault(started_at: str | None) -> None:
    tokenizer = trl_tokenizer("gptoss")
    episode = make_episode(answer="Here is how.")
    options = on_day_of(None, started_at)
    assert episode_tokens(tokenizer, episode.messages, TOOLS, [{}], template_options=options).loss_mask


def test_options_and_day_are_read_from_a_row_of_a_groups_file() -> None:
    row = {"template_options": '{"enable_thinking": false}', "started_at": "2026-03-09T12"}
    assert template_options_of(row) == {"strftime_now": "2026-03-09", "enable_thinking": False}
    assert template_options_of({"template_options": None}) == {}


@pytest.mark.parametrize(
    ("sampling", "options"),
    [
        ({"reasoning_effort": "low"}, {"reasoning_effort": "low"}),
        (
            {"reasoning_effort": "low", "chat_template_kwargs": {"reasoning_effort": "high"}},
            {"reasoning_effort": "high"},
        ),
        ({"extra_body": {"chat_template_kwargs": {"a": 1}}}, {"a": 1}),
        ({"chat_template_kwargs": "no mapping", "reasoning_effort": 3}, {}),
    ],
)
def test_options_are_those_that_servers_pass_to_the_template(sampling: Any, options: Any) -> None:
    assert sampled_options(sampling) == options
