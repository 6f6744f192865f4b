"""The file of tokens of a run: written once, reused by a resumed run, and written again if it is damaged."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.models.tiny_llama import save_tiny_llama, tiny_tokenizer
from tests.trainer.stages.logged.test_stage import episodes, grouped, run
from trainer.errors import TrainingError
from trainer.stages.logged.config import LoggedArguments, LoggedConfig
from trainer.stages.logged.dataset import LoggedDataset, build_dataset, read_logged_groups

Build = Callable[..., LoggedDataset]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    path = grouped(tmp_path, episodes())

    def build(out: Path, tokenizer: Any = None, max_length: int = 640) -> LoggedDataset:
        arguments = LoggedArguments(model="m", groups=str(path), max_length=max_length)
        groups = read_logged_groups(arguments, lambda line: None)
        config = LoggedConfig(output_dir=str(out), use_cpu=True)
        return build_dataset(groups, tokenizer or tiny_tokenizer(), arguments, config)

    return build


def state(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (out / "tokens").iterdir()}


def test_a_second_start_reuses_the_file_of_the_first(build: Build, tmp_path: Path) -> None:
    first = build(tmp_path / "out")
    files = state(tmp_path / "out")
    second = build(tmp_path / "out")
    assert state(tmp_path / "out") == files
    assert list(second.rows) == list(first.rows)
    assert second.summary() == first.summary()
    assert second.record() == first.record()


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def zero(path: Path) -> None:
    """As after a power failure: the right size without the content."""
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize("damage", [halve, zero, Path.unlink])
@pytest.mark.parametrize("name", ["tokens.arrow", "index.arrow"])
def test_a_damaged_file_is_written_again(
    name: str, damage: Callable[[Path], None], build: Build, tmp_path: Path
) -> None:
    expected = list(build(tmp_path / "out").rows)
    damage(tmp_path / "out" / "tokens" / name)
    assert list(build(tmp_path / "out").rows) == expected


def test_a_file_that_a_kill_left_half_written_is_removed(build: Build, tmp_path: Path) -> None:
    (tmp_path / "out" / "tokens").mkdir(parents=True)
    (tmp_path / "out" / "tokens" / ".tokens.arrow.0123456789ab.tmp").write_bytes(b"half")
    assert len(build(tmp_path / "out").rows) == 5
    assert state(tmp_path / "out").keys() == {"tokens.arrow", "index.arrow"}


def test_a_refused_run_leaves_no_tokens_behind(tmp_path: Path) -> None:
    model, groups = save_tiny_llama(tmp_path / "model"), grouped(tmp_path, episodes())
    command = ("logged", "--model", model, "--groups", groups, "--out", tmp_path / "out")
    code, _, stderr = run(*command, "--floor_prompts", "no-such-file.jsonl")
    assert code == 1, stderr
    assert "floor_prompts" in stderr
    assert not (tmp_path / "out" / "tokens").exists()


def test_a_file_of_other_settings_or_another_tokenizer_is_not_used(build: Build, tmp_path: Path) -> None:
    out = tmp_path / "out"
    lengths = build(out).rows.columns["length"]
    files = state(out)
    build(out, max_length=641)
    assert not files.items() & state(out).items()
    files = state(out)
    other = tiny_tokenizer()
    other.chat_template = other.chat_template.replace("<|im_end|>", "<|im_end|> ")
    assert build(out, other, max_length=641).rows.columns["length"].max() > lengths.max()
    assert not files.items() & state(out).items()


def test_a_full_disk_is_reported(build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trainer.stages.logged.dataset.tokenized.write_token_file", full)
    with pytest.raises(TrainingError, match=r"tokens of the log cannot be written to .*No space left"):
        build(tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.arrow"))
    monkeypatch.undo()
    shutil.rmtree(tmp_path / "out")
    assert len(build(tmp_path / "out").rows) == 5
