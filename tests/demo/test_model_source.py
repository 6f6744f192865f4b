"""The model of the demo: which commands a folder, a hub name or an endpoint's URL leads to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from demo.__main__ import consult_step, edit_step, learn_steps, preparation, states_step
from demo.model_source import resolve_model
from demo.runner import ROOT, DemoError, arguments
from tests.fakes.endpoints.scripted import ScriptedEndpoint


def model_folder(tmp_path: Path, model_type: str, template: str = "{{ '<tool_call>' }}") -> Path:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}), encoding="utf-8")
    (tmp_path / "chat_template.jinja").write_text(template, encoding="utf-8")
    return tmp_path


def test_the_packaged_model_serves_both_acts_and_learns_from_the_locked_in_start() -> None:
    model = resolve_model(None)
    steps = [step for lane in preparation("runs/x", model) for step in lane]
    assert [step.name for step in steps] == ["index", "model"]
    steps.append(states_step("runs/x", model))
    acts = [consult_step("runs/x", model), edit_step("runs/x", model)]
    learning = [step for lane in learn_steps("runs/x", model) for step in lane]
    assert {act.model for act in acts} == {".cache/models/smollm2-135m-cold-start"}
    assert all("smollm2-135m-locked-in" in step.command for step in learning)
    assert all(file.is_file() for step in (*acts, *learning) for file in step.inputs)
    for step in (*steps, *acts, *learning):
        assert Path(arguments(step.command)[0]).exists(), step.command


def test_a_llama_folder_plays_all_acts_with_itself(tmp_path: Path) -> None:
    folder = model_folder(tmp_path, "llama")
    model = resolve_model(str(folder))
    assert model.learns == model.serves == str(folder)
    assert [step.name for lane in preparation("r", model) for step in lane] == ["index"]
    assert f"--model {folder} " in states_step("r", model).command


def test_a_model_whose_decision_cannot_be_computed_leaves_act_3_out_and_says_why(tmp_path: Path) -> None:
    model = resolve_model(str(model_folder(tmp_path, "gemma3_text")))
    assert model.learns is None
    assert "Llama models only, and this is a 'gemma3_text' model" in model.why_no_learning
    model = resolve_model(str(model_folder(tmp_path, "llama", "[TOOL_CALLS]")))
    assert "does not write calls as <tool_call>" in model.why_no_learning


def test_an_endpoint_plays_acts_1_and_2_with_the_model_that_it_lists(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("ASCL_MODEL", raising=False)
    with ScriptedEndpoint([]) as endpoint:
        model = resolve_model(endpoint.base_url)
    assert (model.serves, model.learns) == ("", None)
    assert "weights" in model.why_no_learning
    assert f"--base-url {endpoint.base_url} --model {model.name} " in consult_step("r", model).command
    assert [step.name for lane in preparation("r", model) for step in lane] == ["index"]


def test_the_name_of_an_endpoints_model_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASCL_MODEL", "my model")
    assert resolve_model("http://127.0.0.1:9/v1").name == "'my model'"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("http://127.0.0.1:9/v1", "does not list a model .* usually ends in /v1"),
        ("no-such-folder", "is not a folder, a name on the Hugging Face hub"),
        (str(ROOT / "docs"), "has no config.json"),
    ],
)
def test_a_model_that_cannot_be_used_is_explained(
    name: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ASCL_MODEL", raising=False)
    with pytest.raises(DemoError, match=message):
        resolve_model(name)
