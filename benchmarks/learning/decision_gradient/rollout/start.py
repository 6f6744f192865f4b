"""The start: SmolLM2-135M with the packaged adapter `cold-start`, which answers after reading a rule.

Of the packaged adapters, `cold-start` answers but consults too seldom to be locked in, and `locked-in`
consults about everything but was trained on calls only: it calls again and again and hardly ever answers. The
experiment therefore takes the episodes of `cold-start`, and sets the probability of consulting itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

ADAPTER = Path("trainer/models/adapters/cold-start")


def load_start(base: Path, adapter: Path | None = ADAPTER) -> tuple[Any, Any]:
    """Returns the model in float32, with the adapter merged if there is one, and its tokenizer.

    Raises:
        FileNotFoundError: a folder is missing.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    for folder in (base, adapter):
        if folder is not None and not folder.is_dir():
            raise FileNotFoundError(f"'{folder}' does not exist: pass --base and --adapter")
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    return model.eval(), AutoTokenizer.from_pretrained(base)
