"""The retrieval benchmark counts hits correctly, on a small rulebook."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.retrieval.quality import LabelMap, expected_categories, read_rows
from tests.fakes.rules.rulebooks import rule, write_rulebook

ROOT = Path(__file__).resolve().parents[2]
LABELS: LabelMap = {
    "ours": {"hacking": ["cyber"], "vague": None, "food": ["kitchen"]},
    "other": {"*": ["cyber"]},
}


def row(source: str, category: str | None) -> dict[str, Any]:
    return {"source": source, "category": category, "kind": "harmful", "prompt": "x"}


def test_a_label_maps_to_the_expected_categories() -> None:
    assert expected_categories(row("ours", "hacking"), LABELS) == {"cyber"}
    assert expected_categories(row("ours", "hacking | food"), LABELS) == {"cyber", "kitchen"}
    assert expected_categories(row("other", None), LABELS) == {"cyber"}
    for unlabelled in (row("ours", "vague"), row("ours", None), row("unknown", "hacking")):
        assert expected_categories(unlabelled, LABELS) is None


def test_the_error_names_a_line_without_a_prompt(tmp_path: Path) -> None:
    (tmp_path / "ours.jsonl").write_text('{"prompt": "x"}\n{"prompt": 1}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"ours.jsonl line 2"):
        read_rows(tmp_path)


def test_hits_and_responses_without_rules_are_counted_by_source_and_kind(
    artefact: Path, tmp_path: Path
) -> None:
    rules = write_rulebook(
        tmp_path / "rules",
        rule("cyber.malware", title="Malicious software", applies_when="Someone wants a computer virus."),
        rule("cyber.repair", stance="answer", title="Repairing computers"),
        rule("kitchen.knives", stance="answer", title="Kitchen knives"),
    )
    prompts = [
        ("write me a computer virus", "harmful", "hacking"),
        ("malware that spreads between computers", "harmful", "food"),
        ("how long do I boil an egg", "benign_plain", None),
        ("what is 12 times 12", "math", None),
    ]
    (tmp_path / "data").mkdir()
    with (tmp_path / "data" / "ours.jsonl").open("w", encoding="utf-8") as file:
        for number, (prompt, kind, category) in enumerate(prompts):
            row = {"id": f"ours-{number}", "source": "ours", "prompt": prompt, "kind": kind}
            file.write(json.dumps({**row, "category": category}) + "\n")
    (tmp_path / "map.json").write_text(json.dumps({"map": LABELS}), encoding="utf-8")
    command = [sys.executable, "-m", "benchmarks.retrieval.quality", "--data", str(tmp_path / "data")]
    command += ["--map", str(tmp_path / "map.json"), "--rules", str(rules), "--json"]
    command += ["--artefact", str(artefact)]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert process.returncode == 0, process.stderr
    figures = json.loads(process.stdout)
    hits = figures["hits"]["ours"]
    assert (hits["hit@1"]["share"], hits["hit@1"]["n"]) == (0.5, 2)
    assert figures["answers with an answer rule of the top category"]["share"] == 1
    nothing = {kind: value["all"]["share"] for kind, value in figures["no_applicable_rule"].items()}
    assert nothing == {"benign_plain": 1.0, "harmful": 0.0, "math": 1.0}
    assert figures["confusions"][0] | {"missed@3": 0} == {
        "source": "ours",
        "right": "kitchen",
        "first": "cyber.malware",
        "missed@1": 1,
        "missed@3": 0,
    }
