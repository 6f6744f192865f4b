"""`ascl-train check-template`: what training does with a chat template, without loading the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trl
from typer.testing import CliRunner

from tests.fakes.models.templates import build_tokenizer
from tests.trainer.models.test_token_embeddings import equal_rows, model_with
from trainer.cli import app

SHIPPED = Path(trl.__file__).parent / "chat_templates"


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["check-template", *(str(argument) for argument in arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer and no weights."""
    path = tmp_path_factory.mktemp("model")
    build_tokenizer("qwen3").save_pretrained(path)
    return path


def test_each_case_of_a_model_folder_is_told(folder: Path) -> None:
    code, stdout, stderr = run(folder)
    assert (code, stderr) == (0, "")
    head, *lines = stdout.splitlines()
    assert "supports tools; the prompt shows the tool's description; replies end with <|im_end|>" in head
    assert len(lines) == 9
    assert all(line.endswith("trained right") for line in lines)


def test_the_cases_that_are_left_out_say_why() -> None:
    code, stdout, _ = run(SHIPPED / "qwen2_5.jinja")
    assert code == 0
    assert "direct, thoughts         left out: its template leaves out thoughts\n" in stdout
    assert "parallel calls           trained right\n" in stdout


def test_a_template_without_tools_exits_with_1() -> None:
    code, stdout, stderr = run(SHIPPED / "llama3.jinja")
    assert code == 1
    assert "does not support tools" in stdout
    assert "consult                  left out: its template leaves out calls" in stdout
    assert "use a model whose template does, or replace the template" in stderr


def test_json_holds_the_row_and_the_results(folder: Path) -> None:
    code, stdout, _ = run(SHIPPED / "gptoss.jinja", "--tokenizer", folder, "--json")
    assert code == 0
    report: dict[str, Any] = json.loads(stdout)
    assert report["supports_tools"] is report["shows_tools"] is report["states_day"] is True
    outcomes = {result["case"]: result["outcome"] for result in report["results"]}
    assert outcomes["parallel calls"] == "left out"
    assert outcomes["consult, thoughts"] == "trained right"


def test_options_of_the_template_are_used() -> None:
    template = SHIPPED / "qwen3_5_think.jinja"
    assert "direct, thoughts         trained right" in run(template)[1]
    off = run(template, "--template-option", "enable_thinking=false")[1]
    assert (
        "direct, thoughts         left out: its template turns thinking off, but the reply has thoughts"
        in off
    )
    code, _, stderr = run(template, "--template-option", "enable_thinking")
    assert code == 2
    assert "expected KEY=VALUE" in stderr


def test_tokens_that_were_never_trained_are_named(tmp_path: Path) -> None:
    model = model_with(tmp_path / "model", equal_rows)
    code, _, stderr = run(model)
    assert code == 0
    assert "warning" in stderr
    assert "added tokens that it was never trained on" in stderr


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "missing.jinja", "cannot be read"),
        (lambda folder: folder / "missing", "has no tokenizer that can be loaded"),
        (lambda folder: "nobody/a-model-that-is-not-cached", "has no tokenizer that can be loaded"),
        (
            lambda folder: (folder / "empty").mkdir() or folder / "empty",
            "has no tokenizer that can be loaded",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_sentence(make: Any, message: str, tmp_path: Path) -> None:
    code, stdout, stderr = run(make(tmp_path))
    assert (code, stdout) == (1, "")
    assert message in stderr
    assert "pass a" in stderr
    assert "Traceback" not in stderr


def test_a_folder_without_a_template_is_refused_in_one_sentence(tmp_path: Path) -> None:
    tokenizer = build_tokenizer("qwen3")
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path)
    code, _, stderr = run(tmp_path)
    assert code == 1
    assert "has no chat template" in stderr
    assert "add a `chat_template.jinja` that supports tools" in stderr


def test_a_file_that_is_not_a_template_does_not_support_tools(tmp_path: Path) -> None:
    (tmp_path / "broken.jinja").write_text("{% if %}", encoding="utf-8")
    code, stdout, stderr = run(tmp_path / "broken.jinja")
    assert code == 1
    assert "TemplateSyntaxError" in stdout
    assert "does not support tool calls" in stderr
