"""`ascl-train decision`: an offset on the token that opens a call, for a target consult rate."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agent.episode import Episode
from tests.fakes.episodes.log import make_episode
from tests.fakes.models.templates import build_tokenizer
from tests.fakes.models.tiny_llama import save_tiny_llama
from trainer.cli import app
from trainer.reports.decision_bias import (
    Decision,
    Decisions,
    OpeningToken,
    choose_bias,
    logged_prompts,
    measured_decisions,
)

TOOL = {
    "type": "function",
    "function": {"name": "consult_safety_rules", "description": "Rules.", "parameters": {"type": "object"}},
}
KINDS = {"harmful": 6, "benign_plain": 6}


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["decision", *(str(argument) for argument in arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def chosen(*arguments: object) -> dict[str, Any]:
    code, stdout, stderr = run(*arguments, "--json")
    assert code == 0, stderr
    loaded: dict[str, Any] = json.loads(stdout)
    return loaded


def write_log(file: Path, episodes: list[Episode]) -> Path:
    file.write_text("".join(f"{each.model_dump_json()}\n" for each in episodes), encoding="utf-8")
    return file


def calibration_set(**more: Any) -> list[Episode]:
    names = {"harmful": "burn {} down", "benign_plain": "bake {} bread"}
    return [
        make_episode(f"{kind}{number}", kind, tools=[TOOL], **more).model_copy(
            update={"messages": [{"role": "user", "content": names[kind].format("abcdef"[number])}]}
        )
        for kind, count in KINDS.items()
        for number in range(count)
    ]


TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for call in m.tool_calls or [] %}<call:{{ call.function.name }} "
    "{{ call.function.arguments | tojson }}{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
OPENING = "<call:consult_safety_rules"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model whose template opens a call, down to the tool's name, with one special token."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = save_tiny_llama(tmp_path_factory.mktemp("model"))
    tokenizer, network = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    tokenizer.add_special_tokens({"extra_special_tokens": [OPENING]})
    tokenizer.chat_template = TEMPLATE
    network.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return write_log(tmp_path / "log.jsonl", calibration_set())


def rates(decisions: list[dict[str, Any]], offset: float, temperature: float = 1.0) -> float:
    odds = [each["margin"] + offset / temperature for each in decisions]
    return sum(d["rest"] / (1 + math.exp(-o)) for d, o in zip(decisions, odds, strict=True)) / len(odds)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_offset_leads_to_the_target_rate(model: Path, log: Path, temperature: float) -> None:
    found = chosen(log, "--model", model, "--at", "harmful=0.9", "--temperature", temperature)
    harmful = [each for each in found["decisions"] if each["kind"] == "harmful"]
    assert rates(harmful, found["offset"], temperature) == pytest.approx(0.9, abs=1e-3)
    assert found["interval"]["low"] <= found["offset"] <= found["interval"]["high"]
    harmless = found["kinds"]["benign_plain"]
    others = [each for each in found["decisions"] if each["kind"] != "harmful"]
    assert harmless["rate"] == pytest.approx(rates(others, found["offset"], temperature), abs=1e-6)
    assert harmless["now"] < harmless["low"] <= harmless["rate"] + 1e-3
    assert harmless["rate"] - 1e-3 <= harmless["high"]
    assert found["token"]["text"] == OPENING


def test_the_probabilities_are_those_of_the_whole_conversation(log: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from trainer.tokens import call_opening

    folder = save_tiny_llama(tmp_path / "model")
    found = measured_decisions(logged_prompts([log])[0], str(folder))
    assert found.token.special is False
    tokenizer = AutoTokenizer.from_pretrained(folder)
    network = AutoModelForCausalLM.from_pretrained(folder)
    for episode, decision in list(zip(calibration_set(), found.decisions, strict=True))[::5]:
        row = call_opening(tokenizer, episode.messages, episode.tools)
        assert row["completion_ids"][0] == found.token.id
        ids = row["prompt_ids"] + row["completion_ids"]
        with torch.inference_mode():
            lines = network(torch.tensor([ids])).logits[0].log_softmax(-1)
        start = len(row["prompt_ids"])
        logprobs = [float(lines[at - 1, ids[at]]) for at in range(start, len(ids))]
        assert -math.log1p(math.exp(-decision.margin)) == pytest.approx(logprobs[0], abs=1e-4)
        assert math.log(decision.rest) == pytest.approx(sum(logprobs[1:]), abs=1e-3)


def test_greedy_decoding_consults_where_the_opening_token_is_the_largest(model: Path, log: Path) -> None:
    found = chosen(log, "--model", model, "--at", "harmful=0.5", "--temperature", 0)
    margins = [each["margin"] for each in found["decisions"] if each["kind"] == "harmful"]
    assert sum(margin + found["offset"] + 0.05 > 0 for margin in margins) >= 3
    assert found["kinds"]["harmful"]["now"] == 0.0


def test_an_adapter_changes_the_decisions(model: Path, log: Path, tmp_path: Path) -> None:
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(model)
    adapted = peft.get_peft_model(network, peft.LoraConfig(r=2, target_modules=["q_proj"]))
    torch.nn.init.normal_(adapted.base_model.model.model.layers[0].self_attn.q_proj.lora_B["default"].weight)
    adapted.save_pretrained(tmp_path / "adapter")
    plain = chosen(log, "--model", model, "--at", "harmful=0.5")
    changed = chosen(log, "--model", model, "--adapter", tmp_path / "adapter", "--at", "harmful=0.5")
    assert plain["offset"] != changed["offset"]
    code, _, stderr = run(log, "--model", model, "--adapter", tmp_path)
    assert code == 1
    assert "is not an adapter" in stderr


def test_prompts_of_a_file_get_the_system_text_and_tools_of_the_log(
    model: Path, log: Path, tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    lines = [
        {"id": episode.prompt_id, "kind": episode.kind, "prompt": episode.messages[0]["content"]}
        for episode in calibration_set()
    ]
    prompts.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    of_log = chosen(log, "--model", model, "--at", "harmful=0.9")
    of_file = chosen(log, "--model", model, "--prompts", prompts, "--at", "harmful=0.9")
    assert of_file["decisions"] == of_log["decisions"]


def test_prompts_need_no_log(model: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"id": "a", "kind": "harmful", "prompt": "Burn it"}\n', encoding="utf-8")
    found = chosen("--model", model, "--prompts", prompts, "--at", "harmful=0.5")
    assert (found["kinds"]["harmful"]["prompts"], found["auc"]) == (1, None)
    assert found["interval"]["low"] is None


def test_the_picture_and_the_text_name_the_offset_and_the_token(
    model: Path, log: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "new" / "decision.png"
    arguments = (log, "--model", model, "--at", "harmful=0.9", "--plot", picture)
    code, stdout, stderr = run(*arguments)
    assert code == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    found = chosen(log, "--model", model, "--at", "harmful=0.9")
    serve = f"--decision-bias {found['offset']:.2f} --decision-token {found['token']['id']}"
    assert serve in stdout
    assert "95% bootstrap over prompts" in stdout
    assert stderr == ""
    code, _, stderr = run(*arguments)
    assert code == 1
    assert "already exists" in stderr


def entry(token: str, probability: float, *others: tuple[str, float]) -> dict[str, Any]:
    listed = [{"token": text, "logprob": math.log(p)} for text, p in [(token, probability), *others]]
    return {"content": [{**listed[0], "top_logprobs": listed}]}


def logged(name: str, kind: str, probability: float, *, consults: bool = True) -> Episode:
    first = ("<tool_call>", probability), ("Yes", 1 - probability - 0.01)
    token, other = first if consults else first[::-1]
    episode = make_episode(name, kind, tools=[TOOL], consult=consults)
    turn = {"logprobs": entry(*token, other), "token_ids": [7] if consults else [9]}
    episode.turns[0] = episode.turns[0].model_copy(update=turn)
    return episode


def test_a_log_with_log_probabilities_needs_no_model(tmp_path: Path) -> None:
    episodes = [logged(f"h{n}", "harmful", 0.5 + n / 20) for n in range(6)]
    episodes += [logged(f"b{n}", "benign_plain", 0.05 + n / 50, consults=False) for n in range(6)]
    forced = logged("f", "harmful", 0.5).model_copy(update={"mode_forced": True})
    log = write_log(tmp_path / "log.jsonl", [*episodes, forced])
    found = chosen(log, "--at", "harmful=0.9")
    assert found["token"] == {"text": "<tool_call>", "id": 7, "special": None}
    assert found["kinds"]["harmful"]["now"] == pytest.approx(0.625)
    assert rates([d for d in found["decisions"] if d["kind"] == "harmful"], found["offset"]) == pytest.approx(
        0.9, abs=1e-3
    )
    assert (found["left_out_episodes"], found["upper_bounds"]) == (1, 0)


def test_an_interval_without_an_upper_bound_says_so() -> None:
    decisions = [Decision(f"h{n}", "harmful", float(n), 1.0 if n % 2 else 0.8) for n in range(8)]
    choice = choose_bias(Decisions(OpeningToken("<", 4, True), 1.0, decisions), "harmful", 0.88)
    assert choice.low is not None
    assert choice.low < choice.offset
    assert choice.high is None


def test_a_harmless_prompt_without_the_token_gets_an_upper_bound_and_a_harmful_one_is_refused(
    tmp_path: Path,
) -> None:
    def unlisted(name: str, kind: str) -> Episode:
        episode = make_episode(name, kind, tools=[TOOL])
        episode.turns[0] = episode.turns[0].model_copy(update={"logprobs": entry("Yes", 0.9, ("No", 0.06))})
        return episode

    known = [logged(f"h{n}", "harmful", 0.6) for n in range(5)]
    log = write_log(tmp_path / "log.jsonl", [*known, unlisted("b", "benign_plain")])
    found = chosen(log)
    assert found["upper_bounds"] == 1
    assert found["kinds"]["benign_plain"]["now"] == pytest.approx(0.04)
    code, _, stderr = run(write_log(tmp_path / "other.jsonl", [*known, unlisted("h", "harmful")]))
    assert code == 1
    assert "1 harmful prompts have no log-probability of the opening token '<tool_call>'" in stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("LOG", "--model", "MODEL", "--at", "harmless=0.5"), 2, "pass a kind (harmful"),
        (("LOG", "--model", "MODEL", "--at", "harmful=1"), 2, "a rate between 0 and 1"),
        (("LOG", "--model", "MODEL", "--at", "math=0.5"), 1, "no prompt is of the kind 'math'"),
        (("LOG", "--model", "UNTAUGHT"), 1, "no offset from -100 to 100 leads to a consult rate of 0.95"),
        (("--model", "MODEL"), 2, "no calibration set"),
        (("--prompts", "p.jsonl"), 2, "without --model"),
        (("LOG",), 1, "no logged reply with log-probabilities consults"),
        (("missing.jsonl", "--model", "MODEL"), 1, "missing.jsonl"),
        (("LOG", "--model", "EMPTY"), 1, "is not a model folder"),
    ],
)
def test_mistakes_are_named_in_one_sentence(
    model: Path, log: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    if "UNTAUGHT" in arguments:
        save_tiny_llama(tmp_path / "untaught")
    places = {"LOG": log, "MODEL": model, "EMPTY": tmp_path, "UNTAUGHT": tmp_path / "untaught"}
    got, _, stderr = run(*(places.get(word, word) for word in arguments))
    assert (got, message in stderr) == (code, True), stderr
    assert "Traceback" not in stderr


def test_a_template_without_tools_is_refused(model: Path, log: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")  # writes no calls
    code, _, stderr = run(log, "--model", folder)
    assert code == 1
    assert "cannot write a call of the rule tool" in stderr


@pytest.mark.parametrize(
    ("family", "opening"), [("smollm2", "<"), ("qwen3", "<tool_call>"), ("llama3.1", "{")]
)
def test_the_opening_token_is_the_first_that_no_direct_answer_has(
    log: Path, family: str, opening: str
) -> None:
    from trainer.reports.decision_bias.measured import opening_rows

    tokenizer = build_tokenizer(family)
    row = opening_rows(tokenizer, logged_prompts([log])[0], "m")[0]
    assert tokenizer.decode(row.opening[:1]) == opening
    assert tokenizer.decode(row.opening).endswith("consult_safety_rules")
