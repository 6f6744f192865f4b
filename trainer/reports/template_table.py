"""Writes `docs/reference/templates.md`: what training supports with each chat template that TRL ships.

python -m trainer.reports.template_table > docs/reference/templates.md
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from trainer.models.byte_tokenizer import byte_tokenizer
from trainer.models.template_check import CASES, TemplateReport, check_template

_INTRODUCTION = """# Chat templates

What training does with each kind of episode, for every chat template that TRL {version} ships. The suffix
`_training` marks the form that TRL uses for training. `make reference` generates this page by running
`ascl-train check-template` on each template, and a test compares it with the code.

- **yes**: trained right. The tokens that carry loss, decoded, contain the reasoning, the name and the
  arguments of each call, and the answer. They contain nothing of the prompt, a tool result or an earlier
  turn, and no empty thinking block.
- **no**: left out and counted. The numbers refer to the reasons below the table.

Templates that do not support tools are trained on direct answers only; `sft`, `logged` (on logs without
token ids) and `online` refuse them.
"""


def template_table() -> str:
    """Returns the page as Markdown."""
    import trl

    reports = list(_reports(Path(trl.__file__).parent / "chat_templates"))
    causes: list[str] = []
    rows = [_row(report, causes) for report in reports]
    head = ["template", "tools", "ends replies with", *(case.name for case in CASES)]
    lines = [
        _INTRODUCTION.format(version=trl.__version__),
        f"| {' | '.join(head)} |",
        "| --- " * len(head) + "|",
        *rows,
        "",
        *(f"{number}. {cause}" for number, cause in enumerate(causes, start=1)),
    ]
    return "\n".join(lines) + "\n"


def _reports(folder: Path) -> Iterator[TemplateReport]:
    for path in sorted(folder.glob("*.jinja")):
        yield check_template(byte_tokenizer(path.read_text(encoding="utf-8")), path.stem)


def _row(report: TemplateReport, causes: list[str]) -> str:
    """Returns a row of the table; adds the causes that it names to `causes`."""
    cells = [f"`{report.name}`", "yes" if report.supports_tools else "no"]
    cells.append(", ".join(f"`{token}`".replace("|", "\\|") for token in report.turn_ends) or "none")
    for result in report.results:
        if result.outcome == "trained right":
            cells.append("yes")
            continue
        cause = f"{result.cause[0].upper()}{result.cause[1:]}."
        if cause not in causes:
            causes.append(cause)
        cells.append(f"{'no' if result.outcome == 'left out' else 'WRONG'} ({causes.index(cause) + 1})")
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    print(template_table(), end="")
