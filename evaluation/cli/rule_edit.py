"""`ascl-eval edit-rule`: measures whether an edited rule changes the answers, without training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from agent.cli.options import RULES, BaseUrl, MaxTokens, MaxTurns, Model, ToolMode
from evaluation.cli.common import AsJson, Overwrite, exit_on_error, fail, refuse_existing
from evaluation.cli.run import NO_ENDPOINT, NO_MODEL
from evaluation.runtime import PACKAGED_RULES

EDIT = "The edit"


def edit_rule(
    rule: Annotated[
        str, typer.Option(help="ID of the rule to edit, such as cyber.administration.", rich_help_panel=EDIT)
    ],
    out: Annotated[Path, typer.Option(help="Folder for the copy, the logs and edit-rule.json.")],
    rules_dir: Annotated[
        Path,
        typer.Option(
            help="Rulebook folder; it is copied and never changed.",
            show_default="the packaged rules",
            rich_help_panel=EDIT,
        ),
    ] = PACKAGED_RULES,
    stance: Annotated[
        Literal["decline", "answer"] | None,
        typer.Option(
            help="Stance of the edited rule, with a built-in text (default: the opposite stance).",
            rich_help_panel=EDIT,
        ),
    ] = None,
    edited: Annotated[
        Path | None,
        typer.Option(
            help="Complete edited rule file, instead of --stance (default: none).", rich_help_panel=EDIT
        ),
    ] = None,
    prompts: Annotated[
        str, typer.Option(help="JSON Lines of prompts, or builtin:held_out, builtin:train.")
    ] = "builtin:held_out",
    base_url: BaseUrl = "",
    model: Model = "",
    arm: Annotated[
        Literal["adaptive", "always"],
        typer.Option(
            help="`always` forces the first consultation; `adaptive` lets the model decide.",
            rich_help_panel=RULES,
        ),
    ] = "adaptive",
    tool_mode: ToolMode = "native",
    max_tokens: MaxTokens = 512,
    max_turns: MaxTurns = 6,
    top_k: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=10,
            help="Rules per consultation (default: the service's setting).",
            rich_help_panel=RULES,
        ),
    ] = None,
    artefact: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the copy's index, reused by later runs (default: in --out).", rich_help_panel=EDIT
        ),
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Measure how many answers change when one rule is edited.

    Sample the same prompts before an edit of one rule, with the edit, and after undoing it, and count the
    answers that change. A copy of the rulebook is served on a free port. Sampling is greedy, one request at a
    time.

    \f
    Long because it declares one parameter per flag.
    """
    from evaluation.rule_edit import EditOptions, format_proof, run_edit
    from evaluation.sampling import Policy

    if not base_url:
        fail(NO_ENDPOINT, 2)
    if not model:
        fail(NO_MODEL, 2)
    if stance and edited:
        fail("--stance and --edited both define the edited rule: pass only one of them", 2)
    refuse_existing(out / "edit-rule.json", overwrite)
    policy = Policy(
        base_url=base_url,
        model=model,
        rules=None,
        arm=arm,
        policy_version="rule-edit",
        tool_mode=tool_mode,
        max_turns=max_turns,
        sampling={"temperature": 0.0, "max_tokens": max_tokens},
    )
    options = EditOptions(rule, out, policy, prompts, rules_dir, stance, edited, top_k, artefact)
    try:
        with exit_on_error():
            proof = run_edit(options, lambda line: typer.echo(line, err=True))
    except KeyboardInterrupt:
        fail("interrupted; finished episodes are saved: rerun the same command to resume", 130)
    typer.echo(json.dumps(proof, ensure_ascii=False) if as_json else format_proof(proof, out))
