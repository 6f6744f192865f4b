"""Prompts to evaluate on: JSON Lines by path, a data set of the hub, or the sets that come with the package.

`builtin:train` is for sampling and learning, `builtin:held_out` for figures; no prompt is in both.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from evaluation.prompts.schema import Prompt, PromptError, first_error

MAX_BYTES = 256 * 2**20
_BUILTIN = Path(__file__).parent


def builtin_names() -> list[str]:
    return sorted(file.stem for file in _BUILTIN.glob("*.jsonl"))


def prompt_file(spec: str | Path) -> Path:
    """The file that a path, `builtin:NAME` or `hub:...` (see `evaluation.hub_prompts`) stands for.

    Raises:
        PromptError: for an unknown built-in name, a data set that cannot be used, or a path that is no file.
    """
    text = str(spec)
    if text.startswith("hub:"):
        from evaluation.prompts.hub import hub_file

        return hub_file(text)
    if text.startswith("builtin:"):
        name = text.removeprefix("builtin:")
        if name not in builtin_names():
            known = ", ".join(f"builtin:{known}" for known in builtin_names())
            raise PromptError(f"'{text}' is not a built-in set of prompts: use one of {known}, or a path")
        return _BUILTIN / f"{name}.jsonl"
    path = Path(text)
    if not path.is_file():
        raise PromptError(
            f"there is no file of prompts at '{text}': give a JSON Lines file, builtin:held_out or "
            "hub:OWNER/NAME?..."
        )
    return path


def load_prompts(spec: str | Path) -> list[Prompt]:
    """Read and check prompts, in file order.

    Args:
        spec: `builtin:NAME`, or a JSON Lines file of `id`, `prompt`, `kind` and maybe `category`, `answer`.

    Raises:
        PromptError: at the first row that cannot be used, a repeated id, or an empty or oversized file.
    """
    path = prompt_file(spec)
    if path.stat().st_size > MAX_BYTES:
        raise PromptError(f"{path} is larger than {MAX_BYTES // 2**20} MiB: split it")
    prompts: list[Prompt] = []
    seen: dict[str, int] = {}
    with path.open("rb") as file:  # lines end at a line feed and nowhere else, as JSON Lines has it
        for number, line in enumerate(file, 1):
            if line.isspace():
                continue
            try:
                prompt = Prompt.model_validate_json(line.decode())
            except UnicodeDecodeError as error:
                raise PromptError(f"{path}:{number}: not UTF-8 text (byte {error.start})") from None
            except ValidationError as error:
                raise PromptError(f"{path}:{number}: {first_error(error)}") from None
            if prompt.id in seen:
                raise PromptError(
                    f"{path}:{number}: the id '{prompt.id}' is already used on line {seen[prompt.id]}"
                )
            seen[prompt.id] = number
            prompts.append(prompt)
    if not prompts:
        raise PromptError(f"{path} holds no prompts")
    return prompts
