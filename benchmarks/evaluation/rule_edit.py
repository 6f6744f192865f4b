"""Tests whether edited rules change the answers of a real model: `ascl-eval edit-rule` on SmolLM2.

    python -m benchmarks.evaluation.rule_edit --model runs/demo-full/cold-start/merged \\
        --artefact runs/demo-full/artefact --out runs/rule-edit/cold-start

Serves the model with `transformers serve`, greedily and one request at a time, and edits each of `RULES`
while the model answers. `trainer/stages/sft/demonstrations/edited_rules.py` trains a model that follows the
rules it reads.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from demo.runner import dtype
from evaluation.metrics import wilson
from trainer.orchestration import ServeError, serve_model

PROMPTS = Path(__file__).with_name("rule_edit.jsonl")
RULES = ("cyber.administration", "weapons.safety-law-and-history", "illicit-goods.own-property")
SERVE = "transformers serve {{model}} --device cpu --dtype {dtype} --host 127.0.0.1 --port {{port}}"


def run_proof(rule: str, base_url: str, options: argparse.Namespace) -> dict[str, Any]:
    """Runs `ascl-eval edit-rule` for one rule. Returns its JSON output."""
    command = [sys.executable, "-m", "evaluation.cli", "edit-rule", "--rule", rule, "--prompts", str(PROMPTS)]
    command += ["--base-url", base_url, "--model", str(options.model), "--arm", options.arm, "--top-k", "1"]
    command += ["--max-tokens", "40", "--max-turns", "3", "--artefact", str(options.out / "artefact")]
    process = subprocess.run(
        [*command, "--out", str(options.out / rule), "--json"], stdout=subprocess.PIPE, text=True, check=False
    )
    if process.returncode != 0:
        sys.exit(process.returncode)
    result: dict[str, Any] = json.loads(process.stdout)
    return result


def format_table(proofs: list[dict[str, Any]]) -> str:
    """Returns a Markdown table with one row per rule and one for all rules."""

    def share(hits: int, n: int) -> str:
        if not n:
            return "–"
        rate = wilson(hits, n)
        low, high = 100 * (rate.low or 0), 100 * (rate.high or 0)
        return f"{hits}/{n} ({100 * hits / n:.0f} % [{low:.0f}, {high:.0f}])"

    lines = [
        "| rule made `decline` | follow | turned | return | unaffected: label / text changed | behind |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    total = [0] * 10
    for proof in proofs:
        values = [proof[name][key] for name in ("affected", "turned", "returned") for key in ("hits", "n")]
        values += [proof["unaffected"], proof["unaffected_label_changed"], proof["unaffected_text_changed"]]
        values += [proof["touched"]]
        total = [a + b for a, b in zip(total, values, strict=True)]
        lines.append(_table_row(proof["rule"], values, share))
    lines.append(_table_row("all", total, share))
    return "\n".join(lines)


def _table_row(name: str, v: list[int], share: Any) -> str:
    cells = [share(v[0], v[1]), share(v[2], v[3]), share(v[4], v[5]), f"{v[6]}: {v[7]} / {v[8]}", str(v[9])]
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="folder of the model to serve")
    parser.add_argument(
        "--artefact", type=Path, help="index of the packaged rules to start from, which saves a minute"
    )
    parser.add_argument("--arm", choices=("always", "adaptive"), default="always")
    parser.add_argument("--rule", choices=RULES, action="append", help="run only this rule (repeatable)")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.artefact and not (options.out / "artefact").exists():
        shutil.copytree(options.artefact, options.out / "artefact")
    try:
        command = SERVE.format(dtype=dtype())
        with serve_model(command, str(options.model), options.out / "model.log") as base_url:
            proofs = [run_proof(rule, base_url, options) for rule in options.rule or RULES]
    except ServeError as error:
        sys.exit(str(error))
    (options.out / "proofs.json").write_text(json.dumps(proofs, indent=2) + "\n", encoding="utf-8")
    print(format_table(proofs))


if __name__ == "__main__":
    main()
