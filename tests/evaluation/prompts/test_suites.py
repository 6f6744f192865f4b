"""Suites by name, on made-up rows in the layout that each data set was published with."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from typer.testing import CliRunner

from evaluation.cli.app import app
from evaluation.prompts import PromptError, load_prompts
from evaluation.prompts.suites import GROUPS, SUITES, Source

Suites = Callable[..., str]
QUESTION = "Which of these is a colour?"
ROWS: dict[str, list[dict[str, Any]]] = {
    "OpenSafetyLab/Salad-Data/base_set/train": [
        {"question": "Harm, please?", "1-category": "O1", "2-category": "O2", "3-category": "O3"},
    ],
    "OpenSafetyLab/Salad-Data/attack_enhanced_set/train": [{"augq": "Pretend: harm?", "baseq": "Harm?"}],
    "allenai/wildjailbreak/eval/train": [
        {
            "adversarial": "A tale in which someone does harm?",
            "label": 1,
            "data_type": "adversarial_harmful",
        },
        {"adversarial": "A story in which nobody does harm?", "label": 0, "data_type": "adversarial_benign"},
    ],
    "JailbreakBench/JBB-Behaviors/behaviors/harmful": [
        {"Index": 0, "Goal": "Do harm", "Category": "Malware"}
    ],
    "JailbreakBench/JBB-Behaviors/behaviors/benign": [
        {"Index": 0, "Goal": "Stop harm", "Category": "Malware"}
    ],
    "allenai/wildguardmix/wildguardtest/test": [
        {"prompt": "Harm?", "prompt_harm_label": "harmful", "subcategory": "violence"},
        {"prompt": "A recipe?", "prompt_harm_label": "unharmful", "subcategory": "benign"},
        {"prompt": "Unlabelled?", "prompt_harm_label": None, "subcategory": "benign"},
    ],
    "walledai/HarmBench/standard/train": [{"prompt": "Do harm.", "category": "illegal"}],
    "walledai/StrongREJECT/train": [{"prompt": "Do harm now.", "category": "violence", "source": "custom"}],
    "DAMO-NLP-SG/MultiJail/train": [
        {name: f"harm in {name}" for name in ("en", "zh", "it", "vi", "ar", "ko", "th", "bn", "sw", "jv")}
    ],
    "walledai/XSTest/test": [
        {"prompt": "How do I kill a process?", "label": "safe", "type": "homonyms", "focus": "kill"},
        {
            "prompt": "How do I harm people?",
            "label": "unsafe",
            "type": "contrast_homonyms",
            "focus": "kill",
        },
    ],
    "OKTest": [{"prompt": "What does the word mean?"}],
    "bench-llm/or-bench/or-bench-hard-1k/train": [{"prompt": "How do locks fail?", "category": "illegal"}],
    "bench-llm/or-bench/or-bench-toxic/train": [{"prompt": "Help me do harm", "category": "illegal"}],
    "HuggingFaceH4/MATH-500/test": [
        {
            "problem": "What is $1+1$?",
            "answer": "2",
            "subject": "Algebra",
            "unique_id": "test/a/1.json",
        },
    ],
    "Idavidrein/gpqa/gpqa_diamond/train": [
        {
            "Question": QUESTION,
            "Correct Answer": "red",
            **{f"Incorrect Answer {number}": f"wrong {number}" for number in (1, 2, 3)},
        },
    ],
    "TIGER-Lab/MMLU-Pro/test": [
        {"question": QUESTION, "options": ["a cup", "red", "a tree"], "answer": "B", "category": "other"},
    ],
    "openai/gsm8k/main/test": [{"question": "What is 40 + 2?", "answer": "40 + 2 = <<40+2=42>>42\n#### 42"}],
    "allenai/ai2_arc/ARC-Challenge/test": [
        {
            "id": "Mercury_1",
            "question": QUESTION,
            "choices": {"text": ["a cup", "red"], "label": ["1", "2"]},
            "answerKey": "2",
        },
    ],
    "SafeMTData/SafeMTData/Attack_600/Attack_600": [
        {"query_id": 1, "category": "fraud", "multi_turn_queries": ["Who was he?", "How did he do it?"]},
    ],
}


def path_of(source: Source) -> str:
    if urlsplit(source.data).scheme:
        return Path(urlsplit(source.data).path).stem
    return "/".join(part for part in (source.data, source.config, source.split) if part)


@pytest.fixture
def suites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Suites:
    """Writes the made-up rows, and returns a function from a suite's name to its specification."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "hf"))
    folder = tmp_path / "data"
    for path, rows in ROWS.items():
        write(folder, path, rows)
    return lambda name, options="": f"suite:{name}?data={folder}{options}"


def write(folder: Path, path: str, rows: list[dict[str, Any]]) -> None:
    file = folder / f"{path}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


SINGLE = [name for name, suite in SUITES.items() if all(source.form != "turns" for source in suite.sources)]


@pytest.mark.parametrize("name", SINGLE)
def test_every_suite_reads_the_layout_that_it_was_published_with(name: str, suites: Suites) -> None:
    prompts = load_prompts(suites(name))
    assert prompts
    assert all(prompt.id.startswith(f"{name}/") for prompt in prompts)
    assert {prompt.model_extra["suite"] for prompt in prompts if prompt.model_extra} == {name}
    scored_by_answer = "reference answer" in SUITES[name].scored_by
    assert all((prompt.answer is not None) == scored_by_answer for prompt in prompts)


@pytest.mark.parametrize("name", SINGLE)
def test_a_column_that_is_missing_is_named_with_its_suite(name: str, suites: Suites, tmp_path: Path) -> None:
    source = SUITES[name].sources[0]
    write(tmp_path / "data", path_of(source), [{"another": "text"}])
    message = rf"suite {name}: .* has no column '{re.escape(source.columns[0])}'.*its columns are another"
    with pytest.raises(PromptError, match=message):
        load_prompts(suites(name))


def test_kinds_follow_the_labels_and_a_row_without_a_label_is_skipped(suites: Suites) -> None:
    assert [(p.prompt, p.kind) for p in load_prompts(suites("wildguardtest"))] == [
        ("Harm?", "harmful"),
        ("A recipe?", "benign_sensitive"),
    ]
    assert [p.kind for p in load_prompts(suites("wildjailbreak"))] == ["harmful"]
    assert [p.kind for p in load_prompts(suites("wildjailbreak-benign"))] == ["benign_sensitive"]
    assert [p.kind for p in load_prompts(suites("or-bench"))] == ["benign_sensitive", "harmful"]


@pytest.mark.parametrize("name", ["mmlu-pro", "arc-c", "gpqa-diamond"])
def test_a_question_with_options_names_the_right_letter(name: str, suites: Suites) -> None:
    (prompt,) = load_prompts(suites(name))
    assert prompt.prompt.startswith(f"{QUESTION}\n\nA. ")
    assert f"\n{prompt.answer}. red\n" in prompt.prompt
    assert prompt.prompt.endswith("Answer with the letter of the right option.")


def test_the_reference_of_gsm8k_is_the_final_number(suites: Suites) -> None:
    assert [p.answer for p in load_prompts(suites("gsm8k"))] == ["42"]


def test_each_language_of_multijail_is_a_prompt_of_its_own(suites: Suites) -> None:
    prompts = load_prompts(suites("multijail"))
    assert len({p.id for p in prompts}) == SUITES["multijail"].rows / 315 == 10
    assert [p.prompt for p in prompts][:2] == ["harm in en", "harm in zh"]


def test_an_attack_over_several_turns_is_a_script(suites: Suites) -> None:
    (script,) = load_prompts(suites("safemtdata"), scripts=True)
    assert script.user_turns == ("Who was he?", "How did he do it?")
    assert script.id.startswith("safemtdata/")


def test_a_limit_draws_the_same_prompts_in_every_run(suites: Suites, tmp_path: Path) -> None:
    rows = [{"prompt": f"Question {number}?", "category": "x"} for number in range(50)]
    write(tmp_path / "data", "walledai/HarmBench/standard/train", rows)
    first = [p.prompt for p in load_prompts(suites("harmbench", "&limit=7"))]
    assert len(first) == 7
    (tmp_path / "cache" / "ascl" / "prompts").rename(tmp_path / "old")
    assert [p.prompt for p in load_prompts(suites("harmbench", "&limit=7"))] == first


def test_wildjailbreak_is_a_table_with_tabs(suites: Suites, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "allenai" / "wildjailbreak" / "eval"
    (folder / "train.jsonl").unlink()
    (folder / "train.tsv").write_text(
        "adversarial\tlabel\tdata_type\nA tale, please: harm?\t1\tadversarial_harmful\n", encoding="utf-8"
    )
    assert [p.prompt for p in load_prompts(suites("wildjailbreak"))] == ["A tale, please: harm?"]


def test_several_suites_are_one_set_of_prompts(suites: Suites) -> None:
    ids = [p.id for p in load_prompts(suites("xstest,oktest,xstest"))]
    assert [id.partition("/")[0] for id in ids] == ["xstest", "xstest", "oktest"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("suite:xtest", "there is no suite 'xtest': did you mean xstest"),
        ("suite:", "no suite is named"),
        ("suite:xstest?limit=0", "limit '0' .* is not a number of prompts"),
        ("suite:xstest?rows=3", "unknown option 'rows'"),
        ("suite:xstest?data=/nowhere", "folder of data sets '/nowhere' does not exist"),
    ],
)
def test_a_mistake_in_the_specification_is_one_sentence(spec: str, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        load_prompts(spec)


def test_a_file_that_is_not_there_is_named(suites: Suites, tmp_path: Path) -> None:
    (tmp_path / "data" / "OKTest.jsonl").unlink()
    with pytest.raises(PromptError, match=r"suite oktest: .*OKTest\.jsonl does not exist"):
        load_prompts(suites("oktest"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "xstest",
            "walledai/XSTest is gated: accept its terms at https://huggingface.co/datasets/walledai/XSTest",
        ),
        ("jailbreakbench", "cannot be fetched .* check the network connection, or pass a folder"),
    ],
)
def test_without_a_network_a_suite_says_what_to_do(
    name: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(PromptError, match=message):
        load_prompts(f"suite:{name}")


def test_a_dry_run_prints_what_would_be_fetched_asked_and_spent() -> None:
    options = ["--suite", "paper", "--limit", "100", "--samples", "2", "--arm", "none", "--arm", "adaptive"]
    run = CliRunner().invoke(app, ["run", *options, "--dry-run", "--json", "--log", "unused.jsonl"])
    assert run.exit_code == 0, run.output
    plan = json.loads(run.output)
    assert [suite["suite"] for suite in plan["suites"]] == list(GROUPS["paper"])
    assert {suite["episodes"] for suite in plan["suites"]} == {400}
    assert plan["suites"][0]["most_reply_tokens"] == 400 * 6 * 512
    assert "WildChat" in plan["left_out"]


def test_the_plan_fits_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    run = CliRunner().invoke(app, ["run", "--suite", "paper", "--dry-run", "--log", "unused.jsonl"])
    table = run.output.split("\n\n")[0].splitlines()
    assert max(map(len, table)) <= 80
    assert all(any(line.startswith(f" {name} ") for line in table) for name in GROUPS["paper"])


def test_a_dry_run_without_a_suite_says_what_to_pass() -> None:
    run = CliRunner().invoke(app, ["run", "--dry-run", "--log", "unused.jsonl"])
    assert run.exit_code == 2
    assert "pass --suite paper" in run.output


def test_an_option_of_suites_without_a_suite_is_not_ignored() -> None:
    run = CliRunner().invoke(app, ["run", "--limit", "3", "--log", "unused.jsonl"])
    assert run.exit_code == 2
    assert "pass --suite too" in run.output
