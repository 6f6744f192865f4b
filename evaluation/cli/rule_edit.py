"""`ascl-eval edit-rule`: does an edited rule reach the answers, without training?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from evaluation.cli.common import AsJson, clear_errors, fail
from evaluation.runtime import PACKAGED_RULES


def edit_rule(
    rule: Annotated[str, typer.Option(help="Id of the rule to edit, such as cyber.administration.")],
    out: Annotated[Path, typer.Option(help="Folder for the copy, the logs and edit-rule.json.")],
    rules_dir: Annotated[
        Path, typer.Option(help="The rulebook; it is copied and never touched.")
    ] = PACKAGED_RULES,
    stance: Annotated[
        Literal["decline", "answer"] | None,
        typer.Option(help="What the rule becomes, with a plain text of ours; default: the opposite."),
    ] = None,
    edited: Annotated[
        Path | None, typer.Option(help="The whole edited rule file, in place of --stance.")
    ] = None,
    prompts: Annotated[
        str, typer.Option(help="JSON Lines of prompts, or builtin:held_out, builtin:train.")
    ] = "builtin:held_out",
    base_url: Annotated[
        str, typer.Option(help="The model's OpenAI-compatible API.", envvar="OPENAI_BASE_URL")
    ] = "",
    model: Annotated[str, typer.Option(help="Model name.", envvar="ASCL_MODEL")] = "",
    arm: Annotated[
        Literal["adaptive", "always"], typer.Option(help="Who opens the first consultation.")
    ] = "adaptive",
    tool_mode: Annotated[
        Literal["native", "text"], typer.Option(help="`text` sends tool results back as a user message.")
    ] = "native",
    max_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of one reply.")] = 512,
    max_turns: Annotated[int, typer.Option(min=1, help="Most model calls for one prompt.")] = 6,
    top_k: Annotated[
        int | None,
        typer.Option(min=1, max=10, help="Rules that a consultation returns; default: the service's."),
    ] = None,
    artefact: Annotated[
        Path | None,
        typer.Option(help="Folder of the copy's index, kept for the next time; default: in --out."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Edit one rule and put it back while the same model answers the same prompts; count what follows.

    A copy of the rulebook is served on a free port. Sampling is greedy, one request at a time.
    """
    import asyncio

    from evaluation.prompts import load_prompts, prompt_file
    from evaluation.rule_edit import PHASES, edit_proof, format_proof, prepare_edit
    from evaluation.runtime import run_rule_service, wait_for_digest, write_atomic
    from evaluation.sampling import Policy, sample

    if not base_url:
        fail("no endpoint is given: pass --base-url http://127.0.0.1:8810/v1 or set OPENAI_BASE_URL", 2)
    if not model:
        fail("no model is given: pass --model NAME or set ASCL_MODEL", 2)
    if stance and edited:
        fail("--stance and --edited both say what the rule becomes: pass one of them", 2)
    episodes: dict[str, Sequence[Any]] = {}
    digests: dict[str, str] = {}

    async def phase(url: str, name: str, old: str | None) -> str:
        digest = await wait_for_digest(url, old)
        policy = Policy(
            base_url=base_url,
            model=model,
            rules=f"{url}/mcp",
            arm=arm,
            policy_version="rule-edit",
            tool_mode=tool_mode,
            max_turns=max_turns,
            sampling={"temperature": 0.0, "max_tokens": max_tokens},
        )
        log = out / f"{name}.jsonl"
        typer.echo(f"{name}: digest {digest[:12]} -> {log}", err=True)
        await sample(policy, path, log, samples=1, concurrency=1)
        episodes[name] = _last_of_each_prompt(log, wanted)
        digests[name] = digest
        return digest

    try:
        with clear_errors():
            path = prompt_file(prompts)
            wanted = [prompt.id for prompt in load_prompts(path)]
            copy = out / "rulebook-copy"
            edit = prepare_edit(rules_dir, copy, rule, stance=stance, text=edited)
            with run_rule_service(copy, artefact or out / "artefact", out / "service.log", top_k) as url:
                digest: str | None = None
                for name in PHASES:
                    if name != "before":
                        edit.apply(name == "edited")
                    digest = asyncio.run(phase(url, name, digest))
            proof = edit_proof(edit, episodes, digests)
            write_atomic(out / "edit-rule.json", [json.dumps(proof, indent=2, ensure_ascii=False)])
    except KeyboardInterrupt:
        fail("interrupted; what was finished is kept, and the same command goes on", 130)
    typer.echo(json.dumps(proof, ensure_ascii=False) if as_json else format_proof(proof, out))


def _last_of_each_prompt(log: Path, wanted: Sequence[str]) -> list[Any]:
    """An episode that ended in an error was asked again: the later one counts."""
    from agent.episode import read_log

    last = {episode.prompt_id: episode for episode in read_log(log).episodes}
    return [last[id] for id in wanted if id in last]
