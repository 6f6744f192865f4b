"""Runs `make demo`: shows on a real model, in at most five minutes, what the project is for.

1. A model consults: six prompts through the rule service and a local model, with a live trace.
2. Edit a rule and the answer changes: the same prompt before and after the edit, without training.
3. IFPO learns when to consult: GRPO and IFPO side by side from a model that consults about nearly everything.

Every step is an ordinary command that you can run yourself. All results, and the page `report.html`, are in
`runs/demo/`. You can interrupt the demo and start it again: finished steps are skipped. `make demo-full` runs
the whole loop (sample, score, train, measure) instead.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import webbrowser
from pathlib import Path

from rich.rule import Rule

from demo.model_source import ModelSource, resolve_model
from demo.page import write_page
from demo.runner import (
    EDITED_RULE,
    MODEL_PORT,
    ROOT,
    RULES,
    RULES_PORT,
    Runner,
    ServerSet,
    Step,
    check_port,
    console,
    cpu_seconds,
    display_path,
    new_parser,
    quoted,
    run_demo,
)

CONSULT_PROMPTS = "demo/prompts/consult.jsonl"
EDIT_PROMPTS = "demo/prompts/edit.jsonl"
EDITED_TEXT = "demo/prompts/edited-rule.md"


def preparation(run: str, model: ModelSource) -> list[list[Step]]:
    """Returns two lanes that run at the same time: the rule index, and the models."""
    build = f"ascl-rules build --artefact {run}/artefact"
    lanes = [[Step("index", "Build the rule index", build, quiet=True)]]
    lane = [Step("model", "Prepare the local model", model.prepare, quiet=True)] if model.prepare else []
    return [*lanes, lane] if lane else lanes


def states_step(run: str, model: ModelSource) -> Step:
    """Returns the preparation of act 3. It uses the core that a model server leaves free in acts 1 and 2."""
    command = f"python -m demo.learn states --model {model.learns} --out {run}/learn"
    title = "Run act 3's prompts through the layers that training does not change"
    return Step("states", title, command, ("learn",), inputs=model.inputs, quiet=True)


def consult_step(run: str, model: ModelSource) -> Step:
    """Returns the step of act 1."""
    command = (
        f"ascl-agent run --prompts {CONSULT_PROMPTS} --temperature 0 {model.limits} --concurrency 1 --trace "
        f"--log {run}/consult.jsonl --policy-version demo --base-url {model.url} --model {model.name} "
        f"--rules {RULES}/mcp"
    )
    return Step(
        "consult",
        "Act 1: a model consults",
        command,
        ("consult.jsonl", "consult.jsonl.journal"),
        model.serves,
        rules=True,
        inputs=(ROOT / CONSULT_PROMPTS, *model.inputs),
    )


def edit_step(run: str, model: ModelSource) -> Step:
    """Returns the step of act 2, which serves its own copy of the rules.

    The agent writes the first consultation, so that every answer has read the edited rule.
    """
    command = (
        f"ascl-eval edit-rule --rule {EDITED_RULE} --edited {EDITED_TEXT} --prompts {EDIT_PROMPTS} "
        f"--arm always {model.limits} --top-k 1 --artefact {run}/artefact --base-url {model.url} "
        f"--model {model.name} --out {run}/edit --overwrite"
    )
    return Step(
        "edit",
        "Act 2: edit a rule and the answer changes",
        command,
        ("edit",),
        model.serves,
        inputs=(ROOT / EDIT_PROMPTS, ROOT / EDITED_TEXT, *model.inputs),
    )


def learn_steps(run: str, model: ModelSource) -> list[list[Step]]:
    """Returns the two lanes of act 3."""
    command = f"python -m demo.learn train --model {model.learns} --out {run}/learn --method"
    return [
        [
            Step(
                method,
                f"Act 3: {method.upper()} learns when to consult",
                f"{command} {method}",
                (f"learn/{method}.json", f"learn/{method}-progress.json"),
                inputs=model.inputs,
            )
        ]
        for method in ("grpo", "ifpo")
    ]


def play(run: Path, model_name: str | None, open_page: bool) -> None:
    """Plays the unfinished acts and writes the page after each.

    Raises:
        DemoError: a step failed, or the model cannot be used.
    """
    began = time.monotonic()
    name = quoted(run)
    model = resolve_model(model_name)
    prepare, acts = preparation(name, model), [consult_step(name, model), edit_step(name, model)]
    learning = learn_steps(name, model) if model.learns is not None else []
    states = [states_step(name, model)] if model.learns is not None else []
    count = sum(map(len, [*prepare, states, acts, *learning]))
    opened = False

    def show(*, running: bool = True) -> None:
        nonlocal opened
        page = write_page(run, model, running=running)
        if open_page and not opened:
            opened = open_in_browser(page)

    def show_finished_acts() -> None:
        if runner.is_marked_done(acts[0]):
            show()

    with ServerSet(run) as servers:
        runner = Runner(run, count, servers)
        if not runner.is_marked_done(acts[0]):  # fail before the minutes of preparation
            check_port(RULES_PORT, "rule service")
            if model.serves:
                check_port(MODEL_PORT, "model")
        runner.run_lanes(prepare)
        runner.run_lanes([states, acts] if states else [acts], show_finished_acts)
        show()
    if model.learns is None:
        console.print(Rule("Act 3: IFPO learns when to consult", align="left"))
        console.print(f"Left out: {model.why_no_learning}.")
    else:
        with ServerSet(run) as servers:
            runner.servers = servers
            runner.run_lanes(learning, show)
    show(running=False)
    console.print(Rule(align="left"))
    console.print(
        f"Finished after {time.monotonic() - began:.0f} s ({cpu_seconds():.0f} s of CPU). "
        f"The page: {display_path(run / 'report.html')}",
        soft_wrap=True,
    )


def open_in_browser(page: Path) -> bool:
    """Opens the page if this machine has a graphical browser. Returns True, so that it happens once."""
    graphical = sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if graphical:
        webbrowser.open(page.as_uri())
    return True


def main() -> None:
    parser = new_parser(__doc__, "demo")
    parser.add_argument(
        "--model", help="model folder, Hugging Face name, or URL of an OpenAI-compatible endpoint"
    )
    parser.add_argument("--no-browser", action="store_true", help="do not open the page")
    options: argparse.Namespace = parser.parse_args()
    run_demo(parser, options, "demo", lambda run: play(run, options.model or None, not options.no_browser))


if __name__ == "__main__":
    main()
