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

MORE_CALLS = (
    (
        'I\'ll use the consult_safety_rules tool.\n\n{"name": "consult_safety_rules", "arguments": {"s'
        'ituation": "locks"}}'
    ),
    'Sure! {"name": "consult_safety_rules", "arguments": {"situation": "locks"}}',
    '<tool_call>{"name": "consult_safety_rules", "arguments": {"situation": "locks"}}',
    (
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>\n<tool_call'
        '>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>'
    ),
    '```\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n```',
    '```json\n[{"name": "get_weather", "arguments": {"city": "Rome"}}]\n```',
    '<|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>{"city": "Rome"}<|tool_call_end|>',
    '<｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": "Rome"}<｜tool▁call▁end｜>',
    '[TOOL_CALLS] [{"name": "get_weather", "arguments": {}, "id": "abc"}]</s>',
    '[TOOL_CALLS]get_weather{"city": "Rome"}',
    "get_weather[ARGS]{}",
    '<|python_tag|>get_weather(city="Rome")',
    '<|python_tag|>{"type": "function", "name": "get_weather", "parameters": {"city": "Rome"}}<|eom_id|>',
    '{"type": "function", "function": {"name": "get_weather", "parameters": {}}}',
    '{"name": "get_weather", "parameters": {"city": "Rome"}}<|eot_id|>',
    '{"tool": "get_weather", "args": {"city": "Rome"}}',
    '{"tool_name": "get_weather", "tool_args": {"city": "Rome"}}',
    '{"function_name": "get_weather", "args": {}}',
    '{"name":"get_weather","arguments":"{\\"city\\": \\"Rome\\"}"}',
    "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Rome</arg_value>\n</tool_call>",
    "<tool_call>get_weather</tool_call>",
    '<tool_call>{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>\n\n',
    '<minimax:tool_call>\n<invoke name="get_weather">',
    (
        '<function_calls>\n<invoke name="get_weather">\n<parameter name="city">Rome</parameter>\n</inv'
        "oke>\n</function_calls>"
    ),
    "<function=get_weather>\n<parameter=city>\nRome\n</parameter>\n</function>",
    "[get_weather(city='Rome')]",
    '[get_weather(city="Rome"), consult_safety_rules(situation="x")]',
    "consult_safety_rules(situation='x'",
    'consult_safety_rules(\n    situation="locks",\n)',
    '<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "get_weather", "parameters": {}}\n]',
    (
        '<|START_THINKING|>I will check.<|END_THINKING|><|START_ACTION|>[{"tool_name": "x", "parameter'
        's": {}}]<|END_ACTION|>'
    ),
    'Action: get_weather\nAction Input: {"city": "Rome"}\nObservation:',
    "Question: x\nThought: I should use a tool.\nAction: get_weather\nAction Input: Rome",
    "Thought: Do I need to use a tool? Yes\nAction: consult_safety_rules\nAction Input: locks",
    '```tool_code\nprint(get_weather(city="Rome"))\n```',
    '```tool_call\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n```',
    '<|tool_call|>{"name": "get_weather", "arguments": {"city": "Rome"}}<|/tool_call|>',
    '<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city": "Rome"}',
    "<|start|>assistant<|channel|>commentary to=functions.get_weather<|message|>{}<|call|>",
    (
        "<|channel|>analysis<|message|>Need tool.<|end|><|start|>assistant<|channel|>commentary to=fun"
        "ctions.get_weather<|constrain|>json<|message|>{}<|call|>"
    ),
    'Okay, let me check that for you.\n<|python_tag|>{"name": "get_weather", "arguments": {"city": "Rome"}}',
    'I need to consult the safety rules for this.\n\nconsult_safety_rules(situation="locks")',
    '**Tool call:** `consult_safety_rules(situation="locks")`',
    'Tool call: consult_safety_rules(situation="locks")',
    "Function call: consult_safety_rules",
    'consult_safety_rules("locks")',
    "consult_safety_rules()",
    "`consult_safety_rules`",
    '<consult_safety_rules situation="locks"/>',
    "<consult_safety_rules>locks</consult_safety_rules>",
    '<function_call name="get_weather">{}</function_call>',
    "<tool_use>\n<tool_name>get_weather</tool_name>\n</tool_use>",
    '{"consult_safety_rules": {"situation": "x"}}',
    '{\n  "name": "get_weather",\n  "arguments": {\n    "city": "Rome"\n  }\n}',
    "{'name': 'get_weather', 'arguments': {'city': 'Rome'}}",
    "[{'name': 'get_weather', 'arguments': {'city': 'Rome'}}]",
    'json\n{"name": "get_weather", "arguments": {"city": "Rome"}}',
    '<|im_start|>assistant\n<tool_call>{"name": "get_weather", "arguments": {"city": "Rome"}}',
    '<tools>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tools>',
    '<response>\n<tool_call>{"name": "get_weather", "arguments": {"city": "Rome"}}</tool_call>\n</response>',
    '<answer>{"name": "get_weather", "arguments": {"city": "Rome"}}</answer>',
    '<|tool_calls|>[{"name": "get_weather", "arguments": {"city": "Rome"}}]<|/tool_calls|>',
    '<|function_call|>{"name": "get_weather", "arguments": {"city": "Rome"}}',
    "<｜tool▁calls▁begin｜>",
    'functools[{"name": "get_weather"',
    '<|action_start|><|plugin|>{"name": "x"',
    'assistant\n\n{"name": "consult_safety_rules", "arguments": {"situation": "locks"}}',
    '```xml\n<tool_call>{"name": "get_weather", "arguments": {"city": "Rome"}}</tool_call>\n```',
    '<think>\n\n</think>\n\n{"name": "get_weather", "arguments": {"city": "Rome"}}',
    '</think>\n{"name": "get_weather", "arguments": {"city": "Rome"}}',
    'tool_calls: [{"name": "get_weather", "arguments": {"city": "Rome"}}]',
    '<|tool_call_start|>[get_weather(city="Rome")]',
    "<function>get_weather</function>",
    "<tool>get_weather</tool>",
    'call get_weather(city="Rome")',
    '{{"name": "consult_safety_rules", "arguments": {{"situation": "x"}}}}',
    '规则查询:\n<tool_call>{"name": "consult_safety_rules", "arguments": {"situation": "locks"}}</tool_call>',
    '我需要调用工具。\n{"name": "get_weather", "arguments": {"city": "Rome"}}',
    (
        'Je vais d\'abord consulter les règles.\n{"name": "consult_safety_rules", "arguments": {"situa'
        'tion": "locks"}}'
    ),
    'Ich prüfe das zuerst.\n{"name": "consult_safety_rules", "arguments": {"situation": "locks"}}',
    (
        'Let me think about this. I should consult the rules.\n{"name": "consult_safety_rules", "argum'
        'ents": {"situation": "locks"}}'
    ),
    (
        'To answer this safely, I\'ll look at the guidelines.\n{"name": "consult_safety_rules", "argum'
        'ents": {"situation": "locks"}}'
    ),
    'Of course.\n{"name": "consult_safety_rules", "arguments": {"situation": "locks"}}',
    'Okay!\n{"name": "consult_safety_rules", "arguments": {"situation": "locks"}}',
    'Sure thing, one second.\n{"name": "consult_safety_rules", "arguments": {"situation": "locks"}}',
)
"""Replies whose call no server parsed, in variants of these forms."""

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
    "Function: add\nParameters: a, b\nReturns: the sum",
    "Tool: hammer\nUse: nails",
    "Action: Call the bank.\nResult: they help.",
    (
        'To call it from Python:\n\n```python\nresponse = client.chat.completions.create(model="m", to'
        'ols=[{"type": "function", "function": {"name": "get_weather", "parameters": {}}}])\n```'
    ),
    (
        'The model replies with\n\n```json\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n``'
        "`\n\nand your code runs the function."
    ),
    (
        'In the Hermes format, the call is:\n\n```\n<tool_call>\n{"name": "get_weather", "arguments": '
        "{}}\n</tool_call>\n```"
    ),
    "<div>\n  <p>Hello</p>\n</div>",
    "<function> is not an HTML tag.",
    "Use `<function=name>` for Llama.",
    "The `functools` module offers `functools.partial`.",
    "import functools\nfunctools.reduce(lambda a, b: a + b, [1, 2])",
    "[1, 2, 3]",
    "[x for x in range(3)]",
    "f(x) = x^2",
    'search(q="x")',
    'print("hi")',
    "Point(x=1, y=2)",
    "[Point(1, 2), Point(3, 4)]",
    '{"a": 1, "b": [1, 2]}',
    '{"function": "sin", "domain": [0, 1]}',
    '{"name": "Bob", "input": "x"}',
    '{"action": "jump", "height": 3}',
    "| name | arguments |\n|---|---|\n| f | x |",
    'The parameters are {"name": "x"}.',
    "Use <reasoning> as a heading.",
    "Add `<thinking>` and `</thinking>` tags to the prompt.",
    'You can prompt it with "think step by step inside <think></think> tags".',
    "Put the reasoning in <think> tags and the answer in <answer> tags.",
    "Qwen3 emits <think>…</think> before its answer; R1 only emits </think>.",
    "DeepSeek-R1's template ends with <think>, so replies contain only </think>.",
    "The closing tag is </think>",
    "Step 1: write <think>\nStep 2: write </think>",
    "```\n<think>\n```\nopens, and\n```\n</think>\n```\ncloses.",
    "analysis: the poem is sad.",
    "Analysis\n\nThe poem is sad.",
    "Here is my thought process: first I add, then I multiply.",
    "<b>bold</b>",
    "<s>old</s> new",
    "assistant is a role.",
    "The token <|im_end|> ends a turn.",
    "`<|channel|>` selects a channel.",
    "to=functions is part of the header",
    "[TOOL_CALLS] appears in Mistral's vocabulary. Quote it.",
    'In Mistral\'s format you would see `[TOOL_CALLS][{"name": ...}]`.',
    "I consulted the rules: locks are fine.",
    "The rules tool consult_safety_rules returned nothing, so here is the answer: 5.",
    "According to consult_safety_rules, this is fine.",
    "consult_safety_rules is the name of the tool.",
    "Observation: the sky is blue.",
    "Thought: being kind helps. Action: be kind.",
    "Final Answer: 5",
    "```tool\nx\n```",
    "1) Open it\n2) Close it",
    "<output>5</output>",
    'The JSON for the tool is:\n{"name": "get_weather", "arguments": {"city": "Rome"}}\nas in the docs.',
    "<tool>Hammer</tool> is the XML element.",
    "```xml\n<tools>\n  <tool>Hammer</tool>\n</tools>\n```",
    "<tools>\n  <tool>Hammer</tool>\n</tools>",
    '<invoice name="x"></invoice>',
    "- **Function**: add\n- **Arguments**: a, b",
    'Use: search("x")',
    "def consult():\n    pass",
    "def consult_safety_rules(situation):\n    return rules",
    "```python\ndef consult_safety_rules(situation):\n    ...\n```",
    "SELECT name, arguments FROM calls;",
    "name: get_weather\narguments:\n  city: Rome",
    'The call\n\n    <tool_call>{"name": "f"}</tool_call>\n\nis how Hermes does it.',
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
