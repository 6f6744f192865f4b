"""Prompts without ids get stable ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.errors import PromptError
from agent.rollout.prompts import read_prompts


def test_ids_that_are_left_out_follow_from_the_prompt_and_not_from_its_place(tmp_path: Path) -> None:
    one, two = '{"prompt": "How are you?"}', '{"prompt": "Who are you?"}'
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    first.write_text(f"{one}\n{two}\n", encoding="utf-8")
    second.write_text(f'{{"id": "given", "prompt": "x"}}\n{two}\n{one}\n', encoding="utf-8")
    ids = {prompt.prompt: prompt.id for prompt in read_prompts(first)}
    assert len(set(ids.values())) == 2
    again = {prompt.prompt: prompt.id for prompt in read_prompts(second)}
    assert again == {**ids, "x": "given"}


def test_the_same_prompt_twice_without_ids_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "Hi"}\n' * 2, encoding="utf-8")
    with pytest.raises(PromptError, match="repeats the id"):
        read_prompts(file)
