"""Runs the rule edit: samples the same prompts under the rule, its edit and the rule again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.episode import Episode, read_log
from evaluation.prompts import load_prompts, prompt_file
from evaluation.rule_edit.edit import Stance, prepare_edit
from evaluation.rule_edit.proof import PHASES, edit_proof
from evaluation.runtime import PACKAGED_RULES, run_rule_service, wait_for_digest, write_atomic
from evaluation.sampling import Policy, sample

RESULT = "edit-rule.json"


@dataclass(frozen=True)
class EditOptions:
    """The edit of one rule, and the model whose answers it should change."""

    rule: str
    """Id of the rule."""
    out: Path
    """Folder of the copied rulebook, the logs and the result."""
    policy: Policy
    """The model; `rules` is set to the served copy."""
    prompts: str
    """A path, `builtin:NAME` or `hub:...`."""
    rules_dir: Path = PACKAGED_RULES
    """The rulebook; it is copied and never changed."""
    stance: Stance | None = None
    """Stance of the edited rule; None for the opposite."""
    edited: Path | None = None
    """The complete edited rule file, instead of `stance`."""
    top_k: int | None = None
    """Rules that a consultation returns; None for the service's default."""
    artefact: Path | None = None
    """Folder of the copy's index, reused by later runs; None for a folder in `out`."""


def run_edit(options: EditOptions, notify: Callable[[str], None]) -> dict[str, Any]:
    """Serves a copy of the rulebook, samples every phase one request at a time and writes the proof.

    If interrupted, the same options resume.

    Args:
        options: the edit and the model.
        notify: receives one line per phase.

    Returns:
        The proof; see `edit_proof`.

    Raises:
        RuleEditError, PromptError: the rule or the prompts cannot be used.
        AgentError: the rule service, the endpoint or a log cannot be used.
    """
    out = options.out
    episodes: dict[str, Sequence[Episode]] = {}
    digests: dict[str, str] = {}
    path = prompt_file(options.prompts)
    ids = [prompt.id for prompt in load_prompts(path)]
    copy = out / "rulebook-copy"
    edit = prepare_edit(options.rules_dir, copy, options.rule, stance=options.stance, text=options.edited)
    artefact = options.artefact or out / "artefact"
    with run_rule_service(copy, artefact, out / "service.log", options.top_k) as url:
        digest: str | None = None
        policy = replace(options.policy, rules=f"{url}/mcp")
        for phase in PHASES:
            if phase != "before":
                edit.apply(phase == "edited")
            digest = asyncio.run(wait_for_digest(url, digest))
            log = out / f"{phase}.jsonl"
            notify(f"{phase}: digest {digest[:12]} -> {log}")
            asyncio.run(sample(policy, path, log, samples=1, concurrency=1))
            episodes[phase] = _last_of_each_prompt(log, ids)
            digests[phase] = digest
    proof = edit_proof(edit, episodes, digests)
    write_atomic(out / RESULT, json.dumps(proof, indent=2, ensure_ascii=False) + "\n")
    return proof


def _last_of_each_prompt(log: Path, ids: Sequence[str]) -> list[Episode]:
    """Returns one episode per prompt: the last, since an episode that ended in an error was run again."""
    last = {episode.prompt_id: episode for episode in read_log(log).episodes}
    return [last[id] for id in ids if id in last]
