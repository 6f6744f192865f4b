import json
from collections import Counter
from pathlib import Path

import pytest

from evaluation.prompts import PromptError, load_prompts

CATEGORIES = {file.parent.name for file in (Path(__file__).parents[3] / "rules").glob("*/_category.md")}


def write(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(("name", "least"), [("train", 16), ("held_out", 12)])
def test_a_built_in_set_holds_enough_short_prompts_of_every_kind(name: str, least: int) -> None:
    prompts = load_prompts(f"builtin:{name}")
    kinds = Counter(prompt.kind for prompt in prompts)
    assert set(kinds) == {"harmful", "benign_sensitive", "benign_plain"}
    assert min(kinds.values()) >= least
    assert max(len(prompt.prompt.split()) for prompt in prompts) <= 18
    assert {prompt.category for prompt in prompts if prompt.kind == "benign_plain"} == {None}


def test_train_and_held_out_share_no_prompt_and_cover_every_category() -> None:
    train, held_out = load_prompts("builtin:train"), load_prompts("builtin:held_out")
    assert not {p.prompt.lower() for p in train} & {p.prompt.lower() for p in held_out}
    assert not {p.id for p in train} & {p.id for p in held_out}
    assert {p.category for p in [*train, *held_out]} - {None} == CATEGORIES


def test_the_packaged_file_and_its_built_in_name_give_the_same_prompts() -> None:
    path = Path(__file__).parents[3] / "evaluation" / "prompts" / "train.jsonl"
    assert load_prompts(path) == load_prompts("builtin:train")


def test_other_columns_are_preserved(tmp_path: Path) -> None:
    path = write(
        tmp_path / "p.jsonl", {"id": "a", "prompt": "Hi", "kind": "benign_plain", "persona": "nurse"}
    )
    assert (load_prompts(path)[0].model_extra or {})["persona"] == "nurse"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": "a", "prompt": "Hi", "kind": "nice"}], "p.jsonl:1: kind: Input should be 'harmful'"),
        ([{"id": "a", "kind": "math"}], "p.jsonl:1: prompt: Field required"),
        ([{"id": "a", "prompt": "x", "kind": "math"}] * 2, "p.jsonl:2: the id 'a' is already used on line 1"),
        ([["not", "a", "row"]], "p.jsonl:1: Input should be an object"),
    ],
)
def test_an_unusable_prompt_is_reported_with_its_line(
    tmp_path: Path, rows: list[object], message: str
) -> None:
    with pytest.raises(PromptError, match=r"p\.jsonl") as caught:
        load_prompts(write(tmp_path / "p.jsonl", *rows))
    assert message in str(caught.value)


def test_errors_of_sets_and_files_suggest_what_exists(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="builtin:held_out, builtin:train"):
        load_prompts("builtin:heldout")
    with pytest.raises(PromptError, match=r"the file of prompts .* does not exist"):
        load_prompts(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n", encoding="utf-8")
    with pytest.raises(PromptError, match="contains no prompts"):
        load_prompts(tmp_path / "empty.jsonl")
    (tmp_path / "bytes.jsonl").write_bytes(b'{"id": "\xff"}')
    with pytest.raises(PromptError, match="not UTF-8"):
        load_prompts(tmp_path / "bytes.jsonl")


def test_only_a_line_feed_ends_a_row(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    text = "first\u2028second\u0085third"
    row = json.dumps({"id": "a", "prompt": text, "kind": "benign_plain"}, ensure_ascii=False)
    path.write_text(row + "\n", encoding="utf-8")
    assert [prompt.prompt for prompt in load_prompts(path)] == [text]
