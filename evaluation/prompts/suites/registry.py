"""The suites by name, the groups of suites, and what the paper reports that no preset provides."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from evaluation.errors import PromptError
from evaluation.prompts.suites.over_refusal import OVER_REFUSAL
from evaluation.prompts.suites.preset import Suite
from evaluation.prompts.suites.safety import SAFETY
from evaluation.prompts.suites.utility import UTILITY

SUITES: dict[str, Suite] = {suite.name: suite for suite in (*SAFETY, *OVER_REFUSAL, *UTILITY)}

GROUPS: dict[str, tuple[str, ...]] = {
    "paper": (
        *("salad-bench", "wildjailbreak", "jailbreakbench", "wildguardtest"),
        *("xstest", "wildjailbreak-benign", "wildguard-benign", "oktest", "or-bench"),
        *("math-500", "gpqa-diamond", "mmlu-pro", "gsm8k", "arc-c"),
    ),
    "safety": tuple(suite.name for suite in SAFETY if suite.name != "safemtdata"),
    "over-refusal": tuple(suite.name for suite in OVER_REFUSAL),
    "utility": tuple(suite.name for suite in UTILITY),
}
"""Names of groups of suites."""

LEFT_OUT: dict[str, str] = {
    "WildChat": "the paper's selection of harmful requests from allenai/WildChat-1M could not be read",
    "MHJ": "ScaleAI/mhj is gated and not for commercial use, and its columns could not be read in a source",
    "the paper's row counts": "how many rows of each suite it asks could not be read: choose with --limit",
    "the paper's figures by safety suite": "only the figure over all of them (100) could be read, in a third "
    "party's listing",
}
"""Parts of the paper's evaluation that no preset provides, with the reason."""


def find_suites(names: Sequence[str]) -> list[Suite]:
    """Returns the suites with these names, groups expanded, each once.

    Raises:
        PromptError: a name is unknown, or there is none.
    """
    chosen: list[str] = []
    for name in names:
        if name not in SUITES and name not in GROUPS:
            close = get_close_matches(name, [*SUITES, *GROUPS], n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise PromptError(
                f"there is no suite '{name}': {hint}Suites: {', '.join(SUITES)}; groups: {', '.join(GROUPS)}"
            )
        chosen += GROUPS.get(name, (name,))
    if not chosen:
        raise PromptError(f"no suite is named: write suite:xstest, or a group ({', '.join(GROUPS)})")
    return [SUITES[name] for name in dict.fromkeys(chosen)]
