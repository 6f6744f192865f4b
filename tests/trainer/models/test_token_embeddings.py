"""A call that is written with tokens that were never trained is found before a cold start."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from tests.fakes.episodes.log import make_episode, write_log
from tests.fakes.models.tiny_qwen3 import save_tiny_qwen3
from trainer.errors import TrainingError
from trainer.models.token_embeddings import untrained_call_tokens, untrained_problem
from trainer.stages.sft.stage import SFTSettings, run_sft

EMBEDDING = "model.embed_tokens.weight"
TAGS = ("<tool_call>", "</tool_call>")
Edit = Callable[[Any, list[int]], None]


def equal_rows(matrix: Any, tags: list[int]) -> None:
    """Gives the tags the row of tokens that never occurred, up to a little noise."""
    import torch

    unused = [*tags, 300, 301, 302]
    matrix[unused] = matrix[300] + 1e-5 * torch.randn(len(unused), matrix.shape[1])


def zero_rows(matrix: Any, tags: list[int]) -> None:
    matrix[tags] = 0


def model_with(folder: Path, edit: Edit | None) -> Path:
    save_tiny_qwen3(folder)
    if edit is not None:
        weights = load_file(folder / "model.safetensors")
        edit(weights[EMBEDDING], AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids(list(TAGS)))
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize(
    ("edit", "rows", "evidence"), [(equal_rows, 4, "equal to those of 4 other"), (zero_rows, 0, "zero")]
)
def test_tags_with_the_row_of_unused_tokens_are_found_and_a_cold_start_is_refused(
    edit: Edit, rows: int, evidence: str, tmp_path: Path
) -> None:
    folder = model_with(tmp_path / "model", edit)
    found = untrained_call_tokens(folder, AutoTokenizer.from_pretrained(folder))
    assert [(token.text, token.equal_rows) for token in found] == [(tag, rows) for tag in TAGS]
    log = write_log(tmp_path / "log.jsonl", [make_episode(consult=True)])
    settings = SFTSettings(model=folder, out=tmp_path / "run", demonstrations=log)
    with pytest.raises(TrainingError, match="cannot learn to consult") as caught:
        run_sft(settings, notify=lambda _: None)
    assert evidence in str(caught.value)
    assert "remove '<tool_call>' and '</tool_call>' from the added tokens in tokenizer.json" in str(
        caught.value
    )
    assert "or train all weights (lora_rank 0)" in str(caught.value)
    assert not (tmp_path / "run").exists()
    run_sft(settings.model_copy(update={"lora_rank": 0, "lora_layers": 0}), notify=lambda _: None)
    assert (tmp_path / "run" / "run.json").is_file()


def test_weights_in_several_files_are_read(tmp_path: Path) -> None:
    folder = model_with(tmp_path / "model", equal_rows)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    for number, name in enumerate(sorted(weights)):
        save_file({name: weights[name]}, folder / f"model-{number:05}.safetensors", metadata={"format": "pt"})
    assert len(untrained_call_tokens(folder, AutoTokenizer.from_pretrained(folder))) == 2


def test_distinct_rows_and_calls_without_added_tokens_are_no_problem(tmp_path: Path) -> None:
    folder = model_with(tmp_path / "trained", None)
    assert untrained_problem(folder, AutoTokenizer.from_pretrained(folder)) is None
    untrained = model_with(tmp_path / "untrained", equal_rows)
    tokenizer = AutoTokenizer.from_pretrained(untrained)
    tokenizer.chat_template = tokenizer.chat_template.replace("tool_call>", "call>")
    assert untrained_problem(untrained, tokenizer) is None


def test_a_folder_without_weights_is_no_problem(tmp_path: Path) -> None:
    folder = model_with(tmp_path / "model", equal_rows)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    assert untrained_problem(folder, tokenizer) is None
