"""TRL's SFTTrainer trains on the exported file without conversion."""

from __future__ import annotations

from pathlib import Path

import datasets
import pytest

from agent.export.trl import write_trl
from tests.fakes.episodes.log import make_episode
from tests.fakes.models.tiny_llama import save_tiny_llama


@pytest.mark.parametrize("order", ["direct first", "consulted first"])
def test_an_exported_log_trains_in_sfttrainer_unchanged(tmp_path: Path, order: str) -> None:
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    episodes = [
        make_episode("a"),
        make_episode("b"),
        make_episode("c", consult=True),
        make_episode("d", consult=True),
    ]
    if order == "consulted first":
        episodes.reverse()
    write_trl(episodes, tmp_path / "t.parquet")
    rows = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "t.parquet"), split="train", cache_dir=str(tmp_path / "cache")
    )
    folder = save_tiny_llama(tmp_path / "model")
    trainer = SFTTrainer(
        model=str(folder),
        args=SFTConfig(
            output_dir=str(tmp_path / "out"),
            max_steps=1,
            per_device_train_batch_size=4,
            bf16=False,
            gradient_checkpointing=False,
            dataloader_pin_memory=False,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            assistant_only_loss=True,
        ),
        train_dataset=rows,
        processing_class=AutoTokenizer.from_pretrained(folder),
    )
    assert trainer.train().training_loss > 0
