"""The cold start, on a tiny random model."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from agent import Episode, EpisodeLog
from tests.fakes.models.tiny_llama import save_tiny_llama
from trainer.errors import TrainingError
from trainer.stages.sft.stage import SFTSettings, run_sft

TOOL = {
    "type": "function",
    "function": {
        "name": "consult_safety_rules",
        "description": "Looks up the rules.",
        "parameters": {"type": "object", "properties": {"situation": {"type": "string"}}},
    },
}


def episode(number: int, consult: bool, answer: str = "Yes.") -> Episode:
    messages: list[dict[str, Any]] = [{"role": "user", "content": f"Question {number}"}]
    if consult:
        function = {"name": "consult_safety_rules", "arguments": '{"situation": "a question"}'}
        call = {"id": "call_0", "type": "function", "function": function}
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": "call_0", "content": "no_applicable_rule"})
    messages.append({"role": "assistant", "content": answer})
    return Episode(
        id=f"e{number}",
        group_id="g",
        prompt_id=f"p{number}",
        kind="benign_plain",
        prompt=f"Question {number}",
        model_requested="written",
        endpoint="http://127.0.0.1/v1",
        policy_version="written",
        sampling_sent={},
        prompt_digest="0" * 64,
        messages=messages,
        tools=[TOOL],
        mode="consult" if consult else "direct",
        stop_reason="answer",
        started_at="2026-01-01T00:00:00Z",
        seconds=0.0,
    )


def write_log(path: Path, episodes: list[Episode]) -> Path:
    with EpisodeLog(path) as log:
        for each in episodes:
            log.append(each)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("tiny"))


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(folder / "model.safetensors"))


@pytest.mark.filterwarnings("ignore::FutureWarning")  # transformers renames its checkpointing flags
def test_a_cold_start_trains_the_top_layers_and_writes_a_model_to_serve(model: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    data = write_log(tmp_path / "log.jsonl", [episode(i, consult=i % 2 == 0) for i in range(8)])
    lines: list[str] = []
    settings = SFTSettings(
        model=model,
        out=tmp_path / "run",
        demonstrations=data,
        epochs=4,
        learning_rate=5e-3,
        batch_size=4,
        lora_layers=1,
        answer_share=1.0,
    )
    run = run_sft(settings, notify=lines.append)

    assert run["data"]["episodes"] == 8
    assert run["losses"][-1]["loss"] < run["losses"][0]["loss"]
    assert lines[-1].startswith("step 8/8, loss ")
    assert json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8")) == run
    assert (tmp_path / "run" / "adapter" / "adapter_config.json").is_file()
    merged = tmp_path / "run" / "merged"
    assert AutoTokenizer.from_pretrained(merged).response_template["fields"]["tool_calls"]
    before, after = weights(model), weights(merged)
    changed = {name for name in before if not before[name].equal(after[name])}
    assert changed
    assert all(name.startswith("model.layers.2.") for name in changed)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_tool_results_and_user_messages_carry_no_loss(model: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    data = write_log(tmp_path / "log.jsonl", [episode(0, consult=True, answer="No.")])
    settings = SFTSettings(
        model=model, out=tmp_path / "run", demonstrations=data, learning_rate=1e-9, answer_share=1.0
    )
    run_sft(settings.model_copy(update={"epochs": 4.0}), notify=lambda _: None)
    run = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))

    tokenizer = AutoTokenizer.from_pretrained(model)
    rendered = tokenizer.apply_chat_template(
        episode(0, consult=True, answer="No.").messages,
        tools=[TOOL],
        return_dict=True,
        return_assistant_tokens_mask=True,
        return_tensors="pt",
    )
    logits = AutoModelForCausalLM.from_pretrained(model)(rendered["input_ids"]).logits[0, :-1]
    losses = torch.nn.functional.cross_entropy(logits, rendered["input_ids"][0, 1:], reduction="none")
    in_loss = torch.as_tensor(rendered["assistant_masks"]).reshape(-1)[1:].bool()
    assert run["losses"][0]["loss"] == pytest.approx(losses[in_loss].mean().item(), rel=1e-3)
    assert losses[in_loss].mean().item() != pytest.approx(losses.mean().item(), rel=1e-3)


def test_a_log_without_answers_is_refused(model: Path, tmp_path: Path) -> None:
    data = write_log(tmp_path / "log.jsonl", [])
    with pytest.raises(TrainingError, match="holds no episode with an answer"):
        run_sft(SFTSettings(model=model, out=tmp_path / "run", demonstrations=data))


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="is not a model folder"):
        run_sft(SFTSettings(model=tmp_path, out=tmp_path / "run"))


def test_unreadable_weights_and_a_template_without_tools_are_reported(model: Path, tmp_path: Path) -> None:
    data = write_log(tmp_path / "log.jsonl", [episode(0, consult=True)])
    names = ("broken", "plain", "without")
    broken, plain, without = (Path(shutil.copytree(model, tmp_path / name)) for name in names)
    (broken / "model.safetensors").write_bytes(b"half")
    with pytest.raises(TrainingError, match=r"the weights of the model .* cannot be read"):
        run_sft(SFTSettings(model=broken, out=tmp_path / "run", demonstrations=data))
    template = "{% for message in messages %}{{ message.role }}: {{ message.content }}{% endfor %}"
    (plain / "chat_template.jinja").write_text(template, encoding="utf-8")
    for folder in (plain, without):
        (folder / "model.safetensors").unlink()  # no weights are read
    with pytest.raises(TrainingError, match=r"does not support tool calls .its template leaves out calls"):
        run_sft(SFTSettings(model=plain, out=tmp_path / "run", demonstrations=data))
    (without / "chat_template.jinja").unlink()
    with pytest.raises(TrainingError, match="it has no chat template: use an instruction-tuned model"):
        run_sft(SFTSettings(model=without, out=tmp_path / "run", demonstrations=data))


class Captured(Exception):
    """Raised in place of the first training step."""


@pytest.mark.parametrize("template", ["qwen2_5", "qwen3_5_think", "llama3_1_marked"])
def test_a_call_is_learnt_with_an_object_as_its_arguments(
    template: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import trl
    from transformers import AutoTokenizer

    from trainer.stages.sft.trainer import IGNORE_INDEX, SupervisedTrainer

    folder = Path(shutil.copytree(model, tmp_path / "model"))
    shipped = Path(trl.__file__).parent / "chat_templates"
    text = MARKED if template == "llama3_1_marked" else (shipped / f"{template}.jinja").read_text("utf-8")
    (folder / "chat_template.jinja").write_text(text, encoding="utf-8")
    data = write_log(tmp_path / "log.jsonl", [episode(0, consult=True)])
    settings = SFTSettings(model=folder, out=tmp_path / "run", demonstrations=data, max_length=8000)
    learnt: list[list[int]] = []

    def capture(self: Any, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        learnt.append(inputs["input_ids"][inputs["labels"] != IGNORE_INDEX].tolist())
        raise Captured

    monkeypatch.setattr(SupervisedTrainer, "compute_loss", capture)
    with pytest.raises(Captured):
        run_sft(settings, notify=lambda _: None)
    reply = AutoTokenizer.from_pretrained(folder).decode(learnt[0])
    assert "consult_safety_rules" in reply
    assert "a question" in reply
    assert '\\"' not in reply  # a quoted string holds escaped quotation marks


@pytest.mark.parametrize("template", ["qwen3", "qwen3_5_think", "deepseekv3"])
def test_an_empty_block_of_thoughts_is_not_learnt(
    template: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import trl
    from transformers import AutoTokenizer

    from trainer.stages.sft.trainer import IGNORE_INDEX, SupervisedTrainer

    folder = Path(shutil.copytree(model, tmp_path / "model"))
    text = (Path(trl.__file__).parent / "chat_templates" / f"{template}.jinja").read_text("utf-8")
    (folder / "chat_template.jinja").write_text(text, encoding="utf-8")
    data = write_log(tmp_path / "log.jsonl", [episode(n, consult=n == 0) for n in range(2)])
    settings = SFTSettings(
        model=folder, out=tmp_path / "run", demonstrations=data, max_length=8000, batch_size=2
    )
    learnt: list[str] = []

    def capture(self: Any, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        for ids, labels in zip(inputs["input_ids"], inputs["labels"], strict=True):
            learnt.append(tokenizer.decode(ids[labels != IGNORE_INDEX].tolist()))
        raise Captured

    monkeypatch.setattr(SupervisedTrainer, "compute_loss", capture)
    with pytest.raises(Captured):
        run_sft(settings, notify=lambda _: None)
    assert len(learnt) == 2
    assert all("Yes." in text for text in learnt)
    assert "consult_safety_rules" in "".join(learnt)
    assert "think>" not in "".join(learnt)


MARKED = """
{%- for message in messages %}
{%- if message.role == "assistant" %}{% generation %}
{%- for call in message.tool_calls or [] %}
{{- {"name": call.function.name, "parameters": call.function.arguments} | tojson }}
{%- endfor %}{{ message.content }}<|im_end|>{% endgeneration %}
{%- else %}{{ message.role }}: {{ message.content }}<|im_end|>{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}assistant: {% endif %}"""


ODD_ANSWER = {"role": "assistant", "content": "Odd."}


def test_a_demonstration_that_the_template_cannot_render_is_left_out_and_counted(
    model: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    refusing = "{% if messages[-1].content == 'Odd.' %}{{ raise_exception('odd') }}{% endif %}"
    template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    (folder / "chat_template.jinja").write_text(refusing + template, encoding="utf-8")
    logged = [episode(i, consult=i < 3) for i in range(4)]
    odd = logged[0].model_copy(update={"messages": [*logged[0].messages[:-1], ODD_ANSWER]})
    data = write_log(tmp_path / "log.jsonl", [odd, *logged[1:]])
    settings = SFTSettings(model=folder, out=tmp_path / "run", demonstrations=data, epochs=1)
    notes: list[str] = []
    run = run_sft(settings, notify=notes.append)
    assert run["data"]["episodes"] == 3
    assert run["data"]["left_out"] == {"its template cannot render this conversation": 1}
    assert run["data"]["left_out_by_mode"] == {"its template cannot render this conversation": {"consult": 1}}
    assert any("1 of 3 consult episodes are left out" in note for note in notes)


def test_a_cold_start_that_would_lose_a_mode_is_refused_with_the_limit(model: Path, tmp_path: Path) -> None:
    data = write_log(tmp_path / "log.jsonl", [episode(i, consult=i == 0) for i in range(3)])
    settings = SFTSettings(model=model, out=tmp_path / "run", demonstrations=data, max_length=60)
    with pytest.raises(TrainingError, match="1 of 1 consult episodes are left out") as caught:
        run_sft(settings, notify=lambda _: None)
    assert "raise --max_length from 60 to " in str(caught.value)
