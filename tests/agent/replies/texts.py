"""Replies as servers without a tool or reasoning parser return them, written after public chat templates."""

RULE_TOOL = "consult_safety_rules"
CALL = '{"name": "consult_safety_rules", "parameters": {"situation": "locks"}}'
NAMED = '{"name": "consult_safety_rules", "arguments": {"situation": "locks"}}'
OTHER = '{"name": "search", "arguments": {"q": "locks"}}'

CALLS = {
    "Llama": CALL,
    "Llama, two calls": f"{CALL}; {CALL}",
    "Llama, cut off": CALL[:60],
    "Llama, built-in tool": '<|python_tag|>brave_search.call(query="locks")',
    "Llama, built-in tool without its token": 'brave_search.call(query="locks")',
    "Llama, custom": '<function=consult_safety_rules>{"situation": "locks"}</function>',
    "Llama 4": "[search(q='locks'), lookup(word='lock')]",
    "another tool": OTHER,
    "another tool, keys in another order": '{"arguments": {"q": "locks"}, "name": "search"}',
    "another tool after a sentence": f"I'll search first.\n{OTHER}",
    "OpenAI": '{"id": "c1", "type": "function", "function": {"name": "search", "arguments": "{}"}}',
    "OpenAI, list": f'{{"tool_calls": [{OTHER}]}}',
    "Python dictionary": "{'name': 'consult_safety_rules', 'arguments': {'situation': 'locks'}}",
    "code fence": f"```json\n{NAMED}\n```",
    "code fence after a sentence": f"Sure, I'll look that up.\n```json\n{NAMED}\n```",
    "code fence of another tool after a sentence": f"Let me search for it.\n```json\n{OTHER}\n```",
    "another tool, cut off": '{"name": "search", "argum',
    "Gemini": '<tool_code>\nprint(search(q="locks"))\n</tool_code>',
    "label": f"Tool call: {OTHER}",
    "Hermes": f"<tool_call>\n{OTHER}\n</tool_call>",
    "Hermes, cut off": '<tool_call>\n{"name": "sea',
    "Hermes, opening only": "<tool_call>",
    "Hermes, not JSON": "<tool_call>\nconsult_safety_rules: locks\n</tool_call>",
    "Qwen3-Coder": "<tool_call>\n<function=search>\n<parameter=q>\nlocks\n</parameter>\n</function>\n"
    "</tool_call>",
    "Qwen2.5-Coder": f"<tools>{OTHER}</tools>",
    "GLM": "<tool_call>search\n<arg_key>q</arg_key>\n<arg_value>locks</arg_value>\n</tool_call>",
    "ChatGLM": 'get_weather\n{"city": "Rome"}',
    "MiniMax": '<minimax:tool_call>\n<invoke name="search">\n<parameter name="q">x</parameter>\n</invoke>\n'
    "</minimax:tool_call>",
    "Seed-OSS": "<seed:tool_call>\n<function=search>\n<parameter=q>x</parameter>\n</function>\n"
    "</seed:tool_call>",
    "Mistral": f"[TOOL_CALLS][{OTHER}]",
    "Mistral, new": '[TOOL_CALLS]search[ARGS]{"q": "locks"}',
    "Mistral without its token": 'search[ARGS]{"q": "locks"}',
    "DeepSeek": '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>search\n```json\n{"q": 1}\n'
    "```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    "DeepSeek, cut off": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>search<｜tool▁sep｜>",
    "DeepSeek without its tokens": 'functionsearch\n```json\n{"q": "locks"}\n```',
    "DeepSeek V3.2": '<｜DSML｜function_calls>\n<｜DSML｜invoke name="search">\n<｜DSML｜parameter name="q" '
    'string="true">x</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜function_calls>',
    "Kimi": "<|tool_calls_section_begin|><|tool_call_begin|>functions.search:0<|tool_call_argument_begin|>"
    '{"q": 1}<|tool_call_end|><|tool_calls_section_end|>',
    "Kimi without its tokens": 'functions.search:0{"q": "locks"}',
    "Phi": f"functools[{OTHER}]",
    "Phi-4": f"<|tool_call|>[{OTHER}]<|/tool_call|>",
    "Granite": f"<|tool_call|>[{OTHER}]",
    "gpt-oss": '<|channel|>commentary to=functions.search <|constrain|>json<|message|>{"q": 1}<|call|>',
    "gpt-oss, recipient first": ' to=functions.search<|channel|>commentary json<|message|>{"q": 1}<|call|>',
    "gpt-oss without its tokens": 'analysisWe search.assistantcommentary to=functions.search json{"q": 1}',
    "Muse": ' to=search<|message|><atem:function_calls>\n<atem:invoke name="search">\n</atem:invoke>\n'
    "</atem:function_calls><|eot|>",
    "Muse without its tokens": " to=selfI search.assistant to=search<atem:function_calls>\n"
    '<atem:invoke name="search">\n</atem:invoke>\n</atem:function_calls>',
    "Gemma 2": '```tool_code\nsearch(q="locks")\n```',
    "Gemma 4": '<|tool_call>call:search{q:<|"|>locks<|"|>}<tool_call|>',
    "Gemma 4 without its tokens": "call:search{q:locks}",
    "FunctionGemma": "<start_function_call>call:search{q:<escape>x<escape>}<end_function_call>",
    "Cohere": '<|START_ACTION|>[{"tool_call_id": "0", "tool_name": "search", "parameters": {"q": 1}}]'
    "<|END_ACTION|>",
    "Command R": 'Action: ```json\n[{"tool_name": "search", "parameters": {"q": 1}}]\n```',
    "InternLM": '<|action_start|><|plugin|>\n{"name": "search", "parameters": {}}<|action_end|>',
    "LFM": "<|tool_call_start|>[search(q='locks')]<|tool_call_end|><|im_end|>",
    "Apertus": '<|tools_prefix|>[{"search": {"q": 1}}]<|tools_suffix|>',
    "Nemotron": f"<TOOLCALL>[{OTHER}]</TOOLCALL>",
    "Olmo": "<function_calls>\nsearch(q='x')\n</function_calls>",
    "LM Studio": f"[TOOL_REQUEST]{OTHER}[END_TOOL_REQUEST]",
    "ReAct": "Thought: I need to look it up.\nAction: search\nAction Input: locks",
    "ReAct, first form": "Thought 1: I need to look it up.\nAction 1: Search[locks]",
    "ReAct in bold": "**Action:** search\n**Action Input:** locks",
    "LangChain JSON": '{"action": "search", "action_input": "locks"}',
    "LangChain XML": "<tool>search</tool><tool_input>locks</tool_input>",
    "Cline": "<consult_safety_rules>\n<situation>locks</situation>\n</consult_safety_rules>",
    "Python": 'consult_safety_rules(situation="locks")',
    "Python in a fence": '```python\nconsult_safety_rules(situation="locks")\n```',
    "Python, printed": "print(default_api.consult_safety_rules(situation='locks'))",
    "name and object": 'consult_safety_rules\n{"situation": "locks"}',
    "name only": "consult_safety_rules",
    "after thoughts": f"<think>I should ask.</think>{OTHER}",
    "after an announcement": f"Let me check the rules.\n\n<tool_call>{NAMED}</tool_call>",
    "after a Chinese announcement": f"我来查一下规则。\n<tool_call>{NAMED}</tool_call>",
    "after a Spanish announcement": f"Voy a consultar las reglas.\n{CALL}",
    "inside unclosed thoughts": f"<think>\nI should ask.\n<tool_call>\n{NAMED}\n</tool_call>",
}
"""Form -> a reply whose call no server parsed."""

ANSWERS = (
    'Send {"name": "Ada", "age": 36} to the server.',
    'The schema is {"name": "get_user", "parameters": {"id": "integer"}}, as the API reference says.',
    '{"name": "Ada", "email": "ada@example.org"}',
    "Call the function with parameters a and b.",
    "42",
    "好的。",
    "👍",
    "Use the `<think>` tag, then close it with `</think>`.",
    "Use the <think> tag, then close it with </think>.",
    "The tags <think> and </think> enclose the reasoning.",
    "Wrap it in <think>...</think>.",
    '"<think>" opens it and "</think>" closes it.',
    "- <think>: opens the thoughts\n- </think>: closes them",
    "Models write like this:\n```\n<think>\nreasoning\n</think>\n\nanswer\n```\nThat is all.",
    "It opens with a tag:\n```\n<think>\nreasoning",
    'Hermes models write `<tool_call>{"name": ...}</tool_call>`.',
    "Qwen uses the <tool_call> tag around JSON.",
    '```xml\n<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>\n```\nThis is the format of Hermes.',
    'Here is an example:\n```json\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n```\nDone.',
    'Here is an example:\n{"name": "get_weather", "arguments": {"city": "Rome"}}',
    "Mistral writes `[TOOL_CALLS]` before its calls, and Llama `<|python_tag|>`.",
    "gpt-oss writes `<|channel|>analysis<|message|>` first.",
    "The function `consult_safety_rules(situation)` reads the rules.",
    "You can call consult_safety_rules to read the rules.",
    "```python\ndef f(x):\n    return search(x)\n```",
    "Array.prototype.slice.call(arguments)",
    "body\n{\n  color: red;\n}",
    "Action: run away.",
    "<analysis>The poem is about spring.</analysis>",
)
"""Answers that only mention tags and calls."""

THOUGHTS = {
    "Qwen3": ("<think>\nThe user bakes.\n</think>\n\nMix flour.", "Mix flour."),
    "R1": ("The user bakes.\n</think>\n\nMix flour.", "Mix flour."),
    "R1, same line": ("The user bakes.</think>Mix flour.", "Mix flour."),
    "thinking": ("<thinking>The user bakes.</thinking>Mix flour.", "Mix flour."),
    "reasoning": ("<reasoning>I cannot help with weapons, but ...</reasoning>Mix flour.", "Mix flour."),
    "thought": ("<thought>The user bakes.</thought>\nMix flour.", "Mix flour."),
    "Magistral": ("[THINK]The user bakes.[/THINK]Mix flour.", "Mix flour."),
    "Magistral, opened in the prompt": ("The user bakes.[/THINK]Mix flour.", "Mix flour."),
    "Seed-OSS": ("<seed:think>The user bakes.</seed:think>Mix flour.", "Mix flour."),
    "Kimi": ("◁think▷The user bakes.◁/think▷Mix flour.", "Mix flour."),
    "MedGemma": ("<unused94>thought\nThe user bakes.<unused95>Mix flour.", "Mix flour."),
    "Gemma 4": ("<|channel>thought\nThe user bakes.\n<channel|>Mix flour.", "Mix flour."),
    "Cohere": (
        "<|START_THINKING|>The user bakes.<|END_THINKING|><|START_RESPONSE|>Mix flour.<|END_RESPONSE|>",
        "Mix flour.",
    ),
    "OpenThinker": ("<|begin_of_thought|>The user bakes.<|end_of_thought|>\n\nMix flour.", "Mix flour."),
    "Granite": ("Here is my thought process: bake. Here is my response: Mix flour.", "Mix flour."),
    "gpt-oss": (
        "<|channel|>analysis<|message|>The user bakes.<|end|><|start|>assistant<|channel|>final<|message|>"
        "Mix flour.<|return|>",
        "Mix flour.",
    ),
    "gpt-oss without its tokens": ("analysisThe user bakes.assistantfinalMix flour.", "Mix flour."),
    "Muse": (
        " to=self<|message|>The user bakes.<|eom|><|start|>assistant to=user<|message|>Mix flour.<|eot|>",
        "Mix flour.",
    ),
    "Muse without its tokens": (" to=selfThe user bakes.assistant to=userMix flour.", "Mix flour."),
    "Hunyuan": ("<think>The user bakes.</think>\n<answer>\nMix flour.\n</answer>", "Mix flour."),
    "scratch pad": ("<scratchpad>The user bakes.</scratchpad>Mix flour.", "Mix flour."),
    "a quoted closing tag inside": ("<think>Write `</think>` here?</think>Mix flour.", "Mix flour."),
    "an unclosed fence inside": (
        "Try:\n```python\nx = 1\n</think>\n\nUse `x`.\n```\nx\n```",
        "Use `x`.\n```\nx\n```",
    ),
    "quoted tags in the answer": (
        "They ask about `<think>`.\n</think>\n\nUse `<think>` and `</think>`.",
        "Use `<think>` and `</think>`.",
    ),
}
"""Form -> a reply with closed thoughts, and its answer."""

UNFINISHED_THOUGHTS = (
    "<think>The user bakes.",
    "<thinking>\nThe user bakes.",
    "[THINK]The user bakes.",
    "◁think▷The user bakes.",
    "<|START_THINKING|>The user bakes.",
    "<|channel|>analysis<|message|>The user bakes.",
    "analysisThe user bakes.",
    " to=self<|message|>The user bakes.",
)

NOTHING = (
    ".",
    "...",
    " — ",
    "```\n```",
    "```python\n```",
    "**",
    "\u200b",
    "<answer></answer>",
    "<|im_end|>",
    "1.\n2.\n3.",
)
"""Replies that say nothing."""
