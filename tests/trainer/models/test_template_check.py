"""Every chat template that TRL ships, and a few others: what carries loss holds what the policy wrote."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.models.templates import TRL_TEMPLATES, build_tokenizer
from trainer.models.byte_tokenizer import byte_tokenizer
from trainer.models.template_check import CASES, TOOLS, check_template, template_problem
from trainer.reports.template_table import template_table
from trainer.tokens import TokenError, episode_tokens
from trainer.tokens.rendering import render_training_tokens

PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "templates.md"
NO_TOOLS = {
    *("cohere", "cohere2", "deepseek_r1_distill", "gemma", "gemma3", "idefics3", "lfm2", "llama3"),
    *("llava_next", "phi3", "phi3_5", "qwen2_5_vl", "smolvlm"),
}
NO_THOUGHTS = {"gemma4_v2", "lfm2_v2", "llama3_1", "llama3_2", "qwen2_5", "qwen3_instruct_2507", "qwen3_vl"}
"""Templates with tools whose source mentions no field with thoughts."""
ONE_CALL = {"gptoss", "llama3_1", "llama3_2"}
"""Templates with tools that show one call in a message."""


def tokenizer_of(name: str) -> Any:
    import trl

    folder = Path(trl.__file__).parent / "chat_templates"
    return byte_tokenizer((folder / f"{name}.jinja").read_text(encoding="utf-8"))


def written(tokenizer: Any, ids: list[int], mask: list[int]) -> str:
    """Returns the text that carries loss."""
    return str(tokenizer.decode([id for id, flag in zip(ids, mask, strict=True) if flag]))


@pytest.mark.parametrize("template", TRL_TEMPLATES)
def test_a_template_that_supports_tools_is_trained_right_in_every_case_that_it_can_show(
    template: str,
) -> None:
    report = check_template(tokenizer_of(template), template)
    base = template.removesuffix("_training")
    assert report.supports_tools == (base not in NO_TOOLS)
    assert not [result for result in report.results if result.outcome == "wrong"]
    if not report.supports_tools:
        return
    left_out = {result.case for result in report.results if result.outcome == "left out"}
    expected = {"parallel calls"} if base in ONE_CALL else set()
    if base in NO_THOUGHTS:
        expected |= {case.name for case in CASES if "thoughts" in case.name}
    assert left_out == expected
    assert report.turn_ends


@pytest.mark.parametrize("template", TRL_TEMPLATES)
def test_what_carries_loss_is_what_the_policy_wrote_in_replays_and_demonstrations(template: str) -> None:
    """Independent of the check's own reading: the fields are searched in the decoded text."""
    tokenizer = tokenizer_of(template)
    for case in CASES:
        try:
            tokens = episode_tokens(tokenizer, case.messages, TOOLS, case.turns, given=case.given)
        except TokenError:
            continue
        texts = [written(tokenizer, tokens.completion_ids, tokens.loss_mask)]
        if not case.truncated:
            texts.append(
                written(tokenizer, *render_training_tokens(tokenizer, case.messages, TOOLS, given=case.given))
            )
            assert texts[0] == texts[1]
        own = [message for message in case.messages[case.given :] if message["role"] == "assistant"]
        for text in texts:
            assert "amber" not in text  # in the prompt, the tool's results, and earlier turns
            assert not re.search(r"<(\w+)>\s*</\1>", text)
            for message in own:
                for field in ("reasoning_content", "content"):
                    assert message.get(field, "") in text
                calls = message.get("tool_calls", [])
                assert text.count("consult_safety_rules") >= len(calls)
                for call in calls:
                    situation = call["function"]["arguments"].partition('": "')[2].removesuffix('"}')
                    assert situation in text or json.loads(f'"{situation}"') in text


def test_the_page_of_all_templates_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == template_table(), "run `make reference`"


def test_a_truncated_call_ends_with_the_last_character_that_the_policy_wrote() -> None:
    for template in ("qwen2_5", "qwen3_5_think", "gptoss", "glm4moe", "deepseekv3", "llama3_2", "gemma4_v5"):
        tokenizer = tokenizer_of(template)
        case = next(case for case in CASES if case.name == "cut off in a call")
        tokens = episode_tokens(tokenizer, case.messages, TOOLS, case.turns)
        text = written(tokenizer, tokens.completion_ids, tokens.loss_mask)
        assert text.endswith("The user asks about a la"), template
        assert '\\"' not in text


@pytest.mark.parametrize("template", ["qwen2_5", "llama3_1", "gptoss", "qwen3", "deepseekv3"])
def test_malformed_arguments_are_trained_as_the_model_wrote_them(template: str) -> None:
    tokenizer = tokenizer_of(template)
    case = next(case for case in CASES if case.name == "consult")
    call = case.messages[1]["tool_calls"][0]
    function = {**call["function"], "arguments": "{'situation': 'a lamp'}"}
    malformed = {**case.messages[1], "tool_calls": [{**call, "function": function}]}
    messages = [case.messages[0], malformed, *case.messages[2:]]
    tokens = episode_tokens(tokenizer, messages, TOOLS, case.turns)
    assert "{'situation': 'a lamp'}" in written(tokenizer, tokens.completion_ids, tokens.loss_mask)


def test_malformed_arguments_are_left_out_where_the_template_has_no_place_for_text() -> None:
    tokenizer = tokenizer_of("glm4moe")
    call = {"id": "c", "type": "function", "function": {"name": "consult_safety_rules", "arguments": "[1"}}
    messages = [CASES[0].messages[0], {"role": "assistant", "content": "", "tool_calls": [call]}]
    with pytest.raises(TokenError, match="cannot show arguments that are not a JSON object"):
        episode_tokens(tokenizer, messages, TOOLS, [{"finish_reason": "stop"}])


def test_thoughts_that_a_server_left_in_the_content_are_trained() -> None:
    """DeepSeek's template drops them; the opening tag stands in the prompt."""
    tokenizer = tokenizer_of("deepseekv3")
    user = CASES[0].messages[0]
    for content in ("It is a lamp.\n</think>\n\nYes.", "<think>\nIt is a lamp.\n</think>\n\nYes."):
        tokens = episode_tokens(tokenizer, [user, {"role": "assistant", "content": content}], TOOLS, [{}])
        text = written(tokenizer, tokens.completion_ids, tokens.loss_mask)
        assert text == "It is a lamp.\n</think>\n\nYes.<｜end▁of▁sentence｜>"
        assert tokenizer.decode(tokens.prompt_ids).endswith("<｜Assistant｜><think>\n")


def test_truncated_text_after_a_prompt_that_opens_thoughts_is_thoughts() -> None:
    tokenizer = tokenizer_of("qwen3_5_think")
    messages = [CASES[0].messages[0], {"role": "assistant", "content": "It is a la"}]
    tokens = episode_tokens(tokenizer, messages, TOOLS, [{"finish_reason": "length"}])
    assert written(tokenizer, tokens.completion_ids, tokens.loss_mask) == "It is a la"
    assert tokenizer.decode(tokens.prompt_ids).endswith("<|im_start|>assistant\n<think>\n")


def test_a_template_without_end_tokens_ends_replies_with_the_next_turns_token() -> None:
    tokenizer = tokenizer_of("glm4moe")
    case = next(case for case in CASES if case.name == "consult")
    tokens = episode_tokens(tokenizer, case.messages, TOOLS, case.turns)
    text = written(tokenizer, tokens.completion_ids, tokens.loss_mask)
    assert "</tool_call><|observation|>" in text
    assert text.endswith("Yes, with care.<|user|>")


def test_a_template_of_ones_own_that_closes_thoughts_in_the_prompt_is_supported() -> None:
    tokenizer = build_tokenizer("smollm2")
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.reasoning_content %}<think>"
        "{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}"
        "{% for c in m.tool_calls or [] %}[{{ c.function.name }} {{ c.function.arguments | tojson }}]"
        "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
        "{% if enable_thinking is defined and enable_thinking %}<think>{% else %}<think></think>{% endif %}"
        "{% endif %}"
    )
    report = check_template(tokenizer, "own")
    assert {result.outcome for result in report.results} == {"trained right"}
    assert template_problem(tokenizer) is None


def test_a_template_without_tools_is_explained() -> None:
    tokenizer = tokenizer_of("llama3")
    assert "does not support tool calls (its template leaves out calls)" in str(template_problem(tokenizer))
    assert template_problem(tokenizer, consult=False) is None
    tokenizer.chat_template = None
    assert "has no chat template" in str(template_problem(tokenizer, consult=False))
