"""Reports of `ascl-train check-template`: loads a template, and prints the results of its check."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.errors import TrainingError
from trainer.models.byte_tokenizer import byte_tokenizer
from trainer.models.template_check import TemplateReport, check_template
from trainer.models.token_embeddings import untrained_problem
from trainer.tokens import RenderingError


def report_on_template(
    model: str, tokenizer: str | None = None, template_options: Mapping[str, Any] | None = None
) -> tuple[TemplateReport, str | None]:
    """Checks the chat template of a model, without loading the model.

    Args:
        model: model folder, name of a cached model on the Hugging Face Hub, or file with a template.
        tokenizer: folder or cached model with the tokenizer for a template file; None for a tokenizer of
            bytes and the template's special tokens.
        template_options: see `trainer.tokens.rendering.render_turns`.

    Returns:
        The report, and a warning about the model's weights, if they are there; None for no warning.

    Raises:
        TrainingError: the model or the file cannot be read, or has no chat template.
    """
    path = Path(model)
    if path.suffix in (".jinja", ".jinja2") or path.is_file():
        loaded, folder = _tokenizer_of_file(path, tokenizer), None
    elif tokenizer is not None:
        raise TrainingError("--tokenizer is only for a template file: a model has its own tokenizer")
    else:
        loaded, folder = _load_tokenizer(model), _weights_folder(model)
    try:
        report = check_template(loaded, model, template_options)
        warning = untrained_problem(folder, loaded) if folder and report.supports_tools else None
    except RenderingError as cause:
        raise TrainingError(
            f"'{model}' has no chat template ({cause}): use an instruction-tuned model, or add a "
            "`chat_template.jinja` that supports tools to its folder"
        ) from None
    return report, f"{model}: {warning}" if warning else None


def format_report(report: TemplateReport) -> str:
    """Formats a report as lines of text: one per case."""
    tools = "supports tools" if report.supports_tools else "does not support tools"
    shown = "shows" if report.shows_tools else "does not show"
    ends = ", ".join(report.turn_ends) or "no token"
    lines = [
        f"{report.name}: the chat template {tools}; the prompt {shown} the tool's description; "
        f"replies end with {ends}"
        + ("; the prompt contains the date, which training takes from the episode" * report.states_day)
    ]
    width = max(len(result.case) for result in report.results)
    for result in report.results:
        cause = f": {result.cause}" if result.cause else ""
        lines.append(f"  {result.case:<{width}}  {result.outcome}{cause}")
    return "\n".join(lines)


def _tokenizer_of_file(path: Path, tokenizer: str | None) -> Any:
    try:
        source = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(
            f"the chat template '{path}' cannot be read ({error}): pass a Jinja file"
        ) from None
    if tokenizer is None:
        return byte_tokenizer(source)
    loaded = _load_tokenizer(tokenizer)
    loaded.chat_template = source
    return loaded


def _load_tokenizer(model: str) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model, local_files_only=True)
    except Exception as error:  # transformers raises many types for a folder that is not a model's
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise TrainingError(
            f"'{model}' has no tokenizer that can be loaded ({first}): pass a model folder, a model that "
            f"`hf download` has cached, or a .jinja file"
        ) from None


def _weights_folder(model: str) -> Path | None:
    """Returns the folder of a model's weights; None if they are not on this machine."""
    from huggingface_hub import try_to_load_from_cache

    if Path(model).is_dir():
        return Path(model)
    cached = try_to_load_from_cache(model, "config.json")
    return Path(cached).parent if isinstance(cached, str) else None
