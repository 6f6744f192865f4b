"""Options of `ascl-eval judge run`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from evaluation.errors import JudgeError
from evaluation.runtime import named_input
from evaluation.scorers.judges.base import Judge
from evaluation.scorers.judges.registry import make_judge

MAX_INSTRUCTIONS_KIB = 64
API_KEY_VARIABLE = "ASCL_JUDGE_API_KEY"
REQUIRED = (("base_url", "ASCL_JUDGE_BASE_URL"), ("model", "ASCL_JUDGE_MODEL"))
"""Fields that must not be empty, with the environment variables of their flags."""


@dataclass(frozen=True)
class JudgeOptions:
    """A judge, its endpoint and the answers that it judges. The field `base_url` is the flag `--base-url`."""

    judge: str
    """A key of `registry.JUDGES`."""
    base_url: str = ""
    model: str = ""
    kind: Sequence[str] = ("harmful",)
    """Kinds of prompts whose answers are judged."""
    instructions: Path | None = None
    """File that replaces the built-in policy, rubric, questions or criterion."""
    cache: Path | None = None
    """File of replies; None for `OUT.cache`."""
    concurrency: int = 8
    """Maximum number of concurrent requests."""

    @classmethod
    def names(cls) -> list[str]:
        """Returns the names of the options, sorted, without the leading dashes."""
        return sorted(field.name.replace("_", "-") for field in fields(cls))

    def cache_path(self, out: Path) -> Path:
        """Returns the file of replies for judgements that are written to `out`."""
        return self.cache or out.with_name(f"{out.name}.cache")

    def check(self, log: Path, out: Path) -> None:
        """Refuses missing options, and files that would overwrite an input.

        Raises:
            JudgeError: the message names the flag.
        """
        for field, variable in REQUIRED:
            if not getattr(self, field):
                flag = "--" + field.replace("_", "-")
                raise JudgeError(f"the judge's {flag} is missing: pass it or set {variable}")
        cache = self.cache_path(out)
        inputs = {"the log": log, "the file of --instructions": self.instructions}
        if name := named_input(out, {**inputs, "the cache": cache}):
            raise JudgeError(
                f"--out {out} is {name} itself, which is never overwritten: specify a different file"
            )
        if name := named_input(cache, inputs):
            raise JudgeError(
                f"--cache {cache} is {name} itself, which is never extended: specify a different file"
            )

    def adapter(self) -> Judge:
        """Returns the judge's adapter.

        Raises:
            JudgeError: the judge is unknown, or the instructions cannot be read or used.
        """
        return make_judge(self.judge, _read_text(self.instructions) if self.instructions else None)


def _read_text(path: Path) -> str:
    if not path.is_file() or path.stat().st_size > MAX_INSTRUCTIONS_KIB * 1024:
        raise JudgeError(f"--instructions {path} is not a file of at most {MAX_INSTRUCTIONS_KIB} KiB")
    try:
        return path.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        raise JudgeError(f"--instructions {path} is not UTF-8 text") from None
