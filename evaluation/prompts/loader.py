"""Loads prompts from a JSON Lines file, a data set from the Hugging Face hub or a built-in set.

Use `builtin:train` for sampling and learning, and `builtin:held_out` for measurements; they share no prompt.
`builtin:conversations` contains scripts of user turns, for callers that play them.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from evaluation.errors import PromptError
from evaluation.prompts.schema import Prompt, first_error

MAX_BYTES = 256 * 2**20
CONVERSATIONS = "conversations"
"""Name of the built-in suite of conversations, which is not a set of single prompts."""
_BUILTIN = Path(__file__).parent


def builtin_names() -> list[str]:
    """Returns the names of the built-in sets of prompts."""
    return sorted(file.stem for file in _BUILTIN.glob("*.jsonl") if file.stem != CONVERSATIONS)


def packaged_file(name: str) -> Path:
    """Returns the packaged file of a built-in set or suite."""
    return _BUILTIN / f"{name}.jsonl"


def prompt_file(spec: str | Path, *, scripts: bool = False) -> Path:
    """Returns the file for a path, `builtin:NAME`, `suite:NAME` or `hub:...`.

    `evaluation.prompts.suites` and `evaluation.prompts.hub` describe the last two.

    Args:
        scripts: whether the caller plays scripts of several user turns; adds the suite of conversations.

    Raises:
        PromptError: the built-in set is unknown, the data set cannot be used, or there is no such file.
    """
    text = str(spec)
    if text.startswith("hub:"):
        from evaluation.prompts.hub import hub_file

        return hub_file(text)
    if text.startswith("suite:"):
        from evaluation.prompts.suites import suite_file

        return suite_file(text)
    if text.startswith("builtin:"):
        name = text.removeprefix("builtin:")
        if name == CONVERSATIONS and scripts:
            return packaged_file(name)
        if name not in builtin_names():
            names = ", ".join(f"builtin:{name}" for name in builtin_names())
            what = "a suite of conversations, not a" if name == CONVERSATIONS else "not a built-in"
            raise PromptError(f"'{text}' is {what} set of prompts: use one of {names}, or a path")
        return packaged_file(name)
    path = Path(text)
    if not path.is_file():
        raise PromptError(
            f"the file of prompts '{text}' does not exist: give a JSON Lines file, builtin:held_out or "
            "hub:OWNER/NAME?..."
        )
    return path


def load_prompts(spec: str | Path, *, scripts: bool = False) -> list[Prompt]:
    """Loads and validates prompts, in file order.

    Args:
        spec: specification as for `prompt_file`. The rows of a file have `id`, `kind`, `prompt` (or
            `messages` or `user_turns`) and optionally `category` and `answer`.
        scripts: whether the caller plays scripts of several user turns. Others refuse them.

    Raises:
        PromptError: a row is invalid, an id is repeated, or the file is empty or too large.
    """
    path = prompt_file(spec, scripts=scripts)
    if path.stat().st_size > MAX_BYTES:
        raise PromptError(f"{path} is larger than {MAX_BYTES // 2**20} MiB: split it")
    prompts: list[Prompt] = []
    line_of_id: dict[str, int] = {}
    with path.open("rb") as file:  # binary: only a line feed ends a line of JSON Lines
        for number, line in enumerate(file, 1):
            if line.isspace():
                continue
            try:
                prompt = Prompt.model_validate_json(line.decode())
            except UnicodeDecodeError as error:
                raise PromptError(f"{path}:{number}: not UTF-8 text (byte {error.start})") from None
            except ValidationError as error:
                raise PromptError(f"{path}:{number}: {first_error(error)}") from None
            if prompt.id in line_of_id:
                raise PromptError(
                    f"{path}:{number}: the id '{prompt.id}' is already used on line {line_of_id[prompt.id]}"
                )
            if len(prompt.turns) > 1 and not scripts:
                raise PromptError(
                    f"{path}:{number}: '{prompt.id}' is a script of {len(prompt.turns)} user turns, which "
                    "only `ascl-eval run` and `ascl-agent run` play: give the earlier turns with their "
                    "answers as `messages`"
                )
            line_of_id[prompt.id] = number
            prompts.append(prompt)
    if not prompts:
        raise PromptError(f"{path} contains no prompts")
    return prompts
