"""Templates of families that TRL does not ship: each does one thing in its own way."""

from __future__ import annotations

from typing import Any

import pytest

from trainer.models.byte_tokenizer import byte_tokenizer
from trainer.models.template_check import CASES, TOOLS, check_template
from trainer.tokens import episode_tokens

TEMPLATES = {
    "an end token after the conversation": (
        "{{ tools|tojson if tools }}"
        "{% for m in messages %}"
        "{% if m.role=='tool' %}<|tool_response|>{{ m.content | tojson }}<|end|>"
        "{% else %}<|{{m.role}}|>{{ m.content or '' }}"
        "{% for c in m.tool_calls or [] %}<|tool_call|>{{ c.function | tojson }}<|/tool_call|>"
        "{% endfor %}<|end|>{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>"
        "{% else %}<|endoftext|>{% endif %}"
    ),
    "the generation prompt always": (
        "<|START|><|SYS|>pre{{ tools|tojson if tools }}<|END_OF_TURN_TOKEN|>"
        "{% for m in messages %}"
        "{% if m.role=='user' %}<|START_OF_TURN_TOKEN|><|USER_TOKEN|>{{m.content}}<|END_OF_TURN_T"
        "OKEN|>"
        "{% elif m.role=='tool' "
        "%}<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>{{m.content|tojson}}<|END_OF_TURN_TOKEN|>"
        "{% else %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"
        "{% if m.tool_calls %}<|START_THINKING|>{{m.reasoning_content}}<|END_THINKING|><|START_AC"
        "TION|>["
        '{% for tc in m.tool_calls %}{"tool_name": "{{tc.function.name}}", "parameters": '
        "{{tc.function.arguments|tojson}}}{% endfor %}]<|END_ACTION|><|END_OF_TURN_TOKEN|>"
        "{% else %}<|START_RESPONSE|>{{m.content}}<|END_RESPONSE|><|END_OF_TURN_TOKEN|>"
        "{% endif %}{% endif %}{% endfor %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"
    ),
    "ids of nine characters": (
        "[SYSTEM_PROMPT]Today is {{ strftime_now('%d-%m-%Y') }}{{ tools|tojson if tools "
        "}}[/SYSTEM_PROMPT]{% for m in messages %}"
        "{% if m.role=='user' %}[INST]{{m.content}}[/INST]"
        "{% elif m.tool_calls is defined %}[TOOL_CALLS] [{% for c in m.tool_calls %}"
        "{% set out = c.function|tojson %}{{ out[:-1] }}"
        '{% if c.id|length != 9 %}{{ raise_exception(\'bad id\') }}{% endif %}, "id": "{{ c.id }}"}'
        "{% if not loop.last %}, {% endif %}{% endfor %}]</s>"
        "{% elif m.role=='tool' %}[TOOL_RESULTS]{{ m.content }} {{ m.tool_call_id "
        "}}[/TOOL_RESULTS]{% else %}{{ m.content }}</s>{% endif %}{% endfor %}"
    ),
    "the tool named in the id": (
        "{% set ns=namespace(last=-1) %}{% for m in messages %}"
        "{% if m.role=='assistant' and not m.tool_calls %}{% set ns.last=loop.index0 %}"
        "{% endif %}{% endfor %}{{ tools|tojson if tools }}"
        "{% for m in messages %}<|im_{{m.role}}|>{{m.role}}<|im_middle|>"
        "{% if m.role=='assistant' %}<think>{{ m.reasoning_content if loop.index0 > ns.last "
        "}}</think>{{ m.content }}{% if m.tool_calls %}<|tool_calls_section_begin|>"
        "{% for c in m.tool_calls %}<|tool_call_begin|>{{ c.id }}<|tool_call_argument_begin|>{{ "
        "c.function.arguments if c.function.arguments is string else c.function.arguments | "
        "tojson }}<|tool_call_end|>{% endfor %}<|tool_calls_section_end|>{% endif %}"
        "{% else %}{{ m.content }}{% endif %}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_assistant|>assistant<|im_middle|>{% endif %}"
    ),
    "thoughts that are not closed": (
        "{{ tools|tojson if tools }}{% set last = messages[-1] %}{% for m in messages %}"
        "{% if m.role=='assistant' and loop.last %}<SPECIAL_11>Assistant\n"
        "{% if m.content %}<think>\n\n{{ m.content }}{% endif %}{% if m.tool_calls %}<TOOLCALL>["
        '{% for c in m.tool_calls %}{"name": "{{c.function.name}}", "arguments": {{ '
        "c.function.arguments | tojson }}}{% endfor %}]</TOOLCALL>{% endif %}\n<SPECIAL_12>\n\n"
        "{% elif m.role=='assistant' %}<SPECIAL_11>Assistant\n{{ m.content.split('</think>')[-1] "
        "}}{% if m.tool_calls %}<TOOLCALL>["
        '{% for c in m.tool_calls %}{"name": "{{c.function.name}}", "arguments": {{ '
        "c.function.arguments | tojson }}}{% endfor %}]</TOOLCALL>{% endif %}\n<SPECIAL_12>\n\n"
        "{% else %}<SPECIAL_11>{{m.role}}\n{{ m.content }}\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<SPECIAL_11>Assistant\n<think>\n\n{% endif %}"
    ),
    "thoughts opened in the prompt": (
        "{{ tools|tojson if tools }}{% set ns=namespace(u=-1) %}{% for m in messages %}"
        "{% if m.role=='user' %}{% set ns.u=loop.index0 %}{% endif %}{% endfor %}"
        "{% for m in messages %}]~b]{{m.role}}\n{% if m.role=='assistant' %}"
        "{% if m.reasoning_content and loop.index0 > ns.u "
        "%}<think>\n{{m.reasoning_content}}\n</think>\n\n{% endif %}{% endif %}{{ m.content }}"
        "{% if m.tool_calls %}\n<minimax:tool_call>\n"
        '{% for c in m.tool_calls %}<invoke name="{{c.function.name}}">\n'
        '{% for k,v in c.function.arguments|items %}<parameter name="{{k}}">{{v}}</parameter>\n'
        "{% endfor %}</invoke>\n{% endfor %}</minimax:tool_call>{% endif %}[e~[\n{% endfor %}"
        "{% if add_generation_prompt %}]~b]assistant\n<think>\n{% endif %}"
    ),
    "a switch named thinking": (
        "{% if not thinking is defined %}{% set thinking = false %}"
        "{% endif %}{{ tools|tojson if tools }}{% set ns=namespace(u=false) %}"
        "{% for m in messages %}{% if m.role=='user' %}{% set ns.u=true %}<｜User｜>{{m.content}}"
        "{% elif m.role=='assistant' %}{% if ns.u %}<｜Assistant｜></think>{% endif %}"
        "{% set ns.u=false %}{{ m.content }}{% if m.tool_calls %}<｜tool▁calls▁begin｜>"
        "{% for c in m.tool_calls %}<｜tool▁call▁begin｜>{{c.function.name}}<｜tool▁sep｜>{{ "
        "c.function.arguments }}<｜tool▁call▁end｜>{% endfor %}<｜tool▁calls▁end｜>"
        "{% endif %}<｜end▁of▁sentence｜>{% else %}"
        "{% set ns.u=false %}<｜tool▁output▁begin｜>{{m.content}}<｜tool▁output▁end｜>{% endif %}"
        "{% endfor %}{% if add_generation_prompt and ns.u %}<｜Assistant｜>{% if thinking %}<think>"
        "{% else %}</think>{% endif %}{% endif %}"
    ),
    "roles as tags": (
        "{{ tools|tojson if tools }}{% for m in messages %}<{{m.role}}>\n{{m.content}}"
        "{% for c in m.tool_calls or [] %}<call>{{ c.function | tojson }}</call>"
        "{% endfor %}</{{m.role}}>\n{% endfor %}{% if add_generation_prompt %}<assistant>\n"
        "{% endif %}"
    ),
    "thoughts in brackets": (
        "[SYSTEM_PROMPT]Today is {{ strftime_now('%d-%m-%Y') }}{{ tools|tojson if tools "
        "}}[/SYSTEM_PROMPT]{% for m in messages %}"
        "{% if m.role=='user' %}[INST]{{m.content}}[/INST]{% elif m.tool_calls is defined %}"
        "{% if m.reasoning_content %}[THINK]{{ m.reasoning_content }}[/THINK]"
        "{% endif %}[TOOL_CALLS] [{% for c in m.tool_calls %}"
        "{% set out = c.function|tojson %}{{ out[:-1] }}"
        '{% if c.id|length != 9 %}{{ raise_exception(\'bad id\') }}{% endif %}, "id": "{{ c.id }}"}'
        "{% if not loop.last %}, {% endif %}{% endfor %}]</s>"
        "{% elif m.role=='tool' %}[TOOL_RESULTS]{{ m.content }} {{ m.tool_call_id "
        "}}[/TOOL_RESULTS]{% else %}"
        "{% if m.reasoning_content %}[THINK]{{ m.reasoning_content }}[/THINK]"
        "{% endif %}{{ m.content }}</s>{% endif %}{% endfor %}"
    ),
}
WITHOUT_THOUGHTS = {"an end token after the conversation", "ids of nine characters", "roles as tags"}


def loss_text(tokenizer: Any, case_name: str) -> str:
    """Returns the text that carries loss; a bar stands for the text between two replies."""
    case = next(case for case in CASES if case.name == case_name)
    tokens = episode_tokens(tokenizer, case.messages, TOOLS, case.turns, given=case.given)
    text, before = "", 1
    for id, in_loss in zip(tokens.completion_ids, tokens.loss_mask, strict=True):
        text += tokenizer.decode([id]) if in_loss else "|" * before
        before = in_loss
    return text


@pytest.mark.parametrize("name", TEMPLATES)
def test_all_that_the_template_shows_is_trained_right(name: str) -> None:
    report = check_template(byte_tokenizer(TEMPLATES[name]), name)
    assert report.supports_tools
    assert report.shows_tools
    left_out = {result.case: result.cause for result in report.results if result.outcome == "left out"}
    assert not [result for result in report.results if result.outcome == "wrong"]
    hidden = {case.name for case in CASES if "thoughts" in case.name}
    assert left_out.keys() == (hidden if name in WITHOUT_THOUGHTS else set())
    assert set(left_out.values()) <= {"its template leaves out thoughts"}


@pytest.mark.parametrize(
    ("name", "case", "expected"),
    [
        ("an end token after the conversation", "direct", "Yes, with care.<|end|>"),
        (
            "the generation prompt always",
            "direct",
            "<|START_RESPONSE|>Yes, with care.<|END_RESPONSE|><|END_OF_TURN_TOKEN|>",
        ),
        ("ids of nine characters", "direct", "Yes, with care.</s>"),
        (
            "thoughts in brackets",
            "direct, thoughts",
            "[THINK]The rule allows it. Answer.[/THINK]Yes, with care.</s>",
        ),
        (
            "the tool named in the id",
            "direct, thoughts",
            "<think>The rule allows it. Answer.</think>Yes, with care.<|im_end|>",
        ),
        ("the tool named in the id", "direct", "Yes, with care.<|im_end|>"),
        ("thoughts that are not closed", "direct", "Yes, with care.<SPECIAL_12>"),
        (
            "thoughts that are not closed",
            "direct, thoughts",
            "The rule allows it. Answer.\n</think>\n\nYes, with care.<SPECIAL_12>",
        ),
        (
            "thoughts opened in the prompt",
            "direct, thoughts",
            "The rule allows it. Answer.\n</think>\n\nYes, with care.[e~[",
        ),
        (
            "a switch named thinking",
            "direct, thoughts",
            "The rule allows it. Answer.</think>Yes, with care.<｜end▁of▁sentence｜>",
        ),
        ("a switch named thinking", "cut off in thoughts", "Could this be ris"),
    ],
)
def test_the_loss_covers_exactly_what_the_model_writes(name: str, case: str, expected: str) -> None:
    assert loss_text(byte_tokenizer(TEMPLATES[name]), case) == expected


def test_a_tag_of_a_role_at_the_end_of_a_prompt_opens_no_thoughts() -> None:
    tokenizer = byte_tokenizer(TEMPLATES["roles as tags"])
    messages = [CASES[0].messages[0], {"role": "assistant", "content": "Yes, with ca"}]
    tokens = episode_tokens(tokenizer, messages, TOOLS, [{"finish_reason": "length"}])
    assert tokenizer.decode(tokens.prompt_ids).endswith("<assistant>\n")
    assert tokenizer.decode(tokens.completion_ids) == "Yes, with ca"
