"""Marks by which calls are recognised in a text, one for each family of chat templates.

Sources: the templates that TRL ships, and the tool parsers of vLLM and SGLang.
"""

from __future__ import annotations

import re
from functools import lru_cache

_TAG_NAME = (
    r"(?:[\w.-]{1,30}:)?(?:tool_?calls?|function_?calls?|functioncalls?|tool_use|tool_request|toolcall|invoke|use_mcp_tool|tool_code"
    r"|(?:execute|call|use)_tool|api_call"
    r"|(?:[a-z]{1,20}_)tool_call)"
)
MARK = re.compile(
    # Hermes, Qwen, GLM, MiniMax, Nemotron, Seed-OSS, Jamba, Hunyuan, Muse
    rf"<(?P<tag>{_TAG_NAME})(?=[\s>])[^<>]{{0,300}}>"
    # Qwen2.5-Coder: a common word, so it needs a call as its content
    r"|<(?P<weak>tools?|function|api|action|execute|call)>(?=\s*[\[{]\s*\{?\s*[\"'](?:name|tool|function)[\"'])"
    r"|<(?P<named>tool|function|action)\s+name=[^<>\n]{1,200}>"
    r"|(?P<agent><tool>[^<>\n]{1,200}</tool>\s{0,20}<tool_input>)"  # LangChain's XML agent
    r"|(?P<gemma><start_(?:of_)?function_call>)"
    r"|(?P<function><function=[^<>\n]{1,200}>)"  # Llama's custom form, Qwen3-Coder
    # LFM, Phi-4, Kimi, Granite, Cohere, InternLM, DeepSeek, Gemma 4, Apertus, Llama's built-in tools
    r"|(?P<piped><[|｜](?:DSML[|｜])?(?:(?:tool|function)[_▁]?calls?(?:[_▁]section)?(?:[_▁](?:begin|start))?"
    r"|python_tag|START_ACTION|action_start|plugin|tools_prefix|invoke\b[^<>|｜]{0,200})[|｜]?>)"
    r"|(?P<bracket>\[(?:TOOL_CALLS|TOOL_REQUEST|FUNCTION_CALLS?|TOOL_CALL)\])"  # Mistral, LM Studio, MiniMax
    r"|(?P<rest>\bfunctools\[(?=\s*\{)|<<function>>|\bto=functions\.[\w.-]+|\[ARGS\](?=\s*\{))"
    r"|(?P<fence>^[ \t]{0,3}```(?:tool_code|tool_calls?|tool_use|function_calls?)\b)"  # Gemma
    r"|(?P<react>^[ \t>*#]{0,8}Action(?: name)?:?\**:?[ \t]*\S[^\n]{0,300}\n"
    r"\s{0,20}[>*#]{0,4}[ \t]*Action[ _]Input\**:"
    r"|^[ \t>*#]{0,8}(?:Tool|Function)(?: name| call)?\**:\**[ \t]*[\w.-]{1,100}[ \t]*\n"
    r"\s{0,20}[>*#]{0,4}[ \t]*"
    r"(?:(?:Tool )?(?:Input|Arguments|Parameters|Args)\**:\**\s*\{|Tool[ _]Input\**:))"
    r"|(?P<line>^[ \t>*#]{0,8}Action(?: \d{1,3})?:\**[ \t]*[\w.-]{1,100}\[[^\]\n]{0,1000}\][ \t]*$)",
    re.MULTILINE | re.IGNORECASE,
)
"""Marks that no answer contains unless it quotes them. The group names the form."""
PARTS_OF_MARKS = (
    *("<", "[tool", "[function", "[args]", "functools", "to=", "```tool", "```function"),
    *(f"{word}{end}" for word in ("input", "arguments", "parameters", "args") for end in ":*"),
)
"""Texts in lower case, one of which every mark contains, except "Action: NAME[...]": that has a bracket."""
PAYLOAD = re.compile(r"\s*(?:[\[{<]|[\w.:/-]{1,200}\s*(?:[\n<({\[]|\Z)|\Z)")
"""Begins the content of a tag that is a call; prose about a tag continues with a word."""
_CLOSING = {
    "agent": re.compile(r"</tool_input>"),
    "gemma": re.compile(r"<end_(?:of_)?function_call>"),
    "function": re.compile(r"</function>"),
    "piped": re.compile(
        r"<[|｜](?:/(?:tool|function)[\w▁]*|(?:tool|function)[_▁]?calls?(?:[_▁]section)?[_▁]end|END_ACTION|action_end"
        r"|tools_suffix)[|｜]?>|<tool_call\|>|</[|｜]DSML[|｜](?:function_calls|invoke)>"
    ),
    "bracket": re.compile(r"\[(?:END_TOOL_REQUEST|/TOOL_REQUEST|/FUNCTION_CALLS?|/TOOL_CALLS?)\]"),
    "fence": re.compile(r"^[ \t]{0,3}```", re.MULTILINE),
    "rest": re.compile(r"<\|(?:end|call|return|eom|start)\|>"),
    "line": re.compile(r"^[ \t>*#]{0,8}(?:Observation|Thought|Final Answer|Answer)\b", re.MULTILINE),
    "react": re.compile(r"^[ \t>*#]{0,8}Final Answer\**:", re.MULTILINE | re.IGNORECASE),
}
"""End of a call, by form. A call without it extends to the end of the text."""
TOOL_RESULT = re.compile(
    r"<(?:tool_response|tool_result|function_results?|tool_output)>.*?"
    r"(?:</(?:tool_response|tool_result|function_results?|tool_output)>|\Z)"
    r"|<[|｜]tool[_▁](?:response|outputs?|results?)[^<>]{0,40}>.*?"
    r"(?:<[|｜]tool[_▁](?:response|outputs?|results?)[_▁]end[|｜]>|\Z)"
    r"|\[TOOL_RESULTS\].*?(?:\[/TOOL_RESULTS\]|\Z)",
    re.DOTALL,
)
"""Results of tools, which only the agent writes; a model that writes one invents it."""
BARE_CALL = re.compile(
    r"\[\s*[A-Za-z_][\w.]*\((?:\s*\w+\s*=[^=]|\s*\)).*\)\s*\]"  # Llama 4, LFM without its tokens
    r"|[A-Za-z_][\w.]*\.call\(\s*\w+\s*=.*\)"  # Llama's built-in tools
    r"|(?:thought\n.{0,9999}\n)?call:[\w.-]+\{.*\}?"  # Gemma 4 without its tokens
    r"|(?:call|use|invoke) [\w.]+\(\s*\w+\s*=.*\)"
    r"|<(?:tool|function|action)>[\w.-]+</(?:tool|function|action)>"
    r"|functions\.[\w.-]+:\d+\s*\{.*"  # Kimi without its tokens
    r"|function\s?[\w.-]+\n```json\n.*"  # DeepSeek without its tokens
    r"|[A-Za-z]+[_.][\w.-]{0,100}\n\{\s*\".*\}",  # ChatGLM
    re.DOTALL,
)
"""Forms that count as a call only if the whole reply consists of them."""


def closing(form: str, tag: str) -> re.Pattern[str]:
    """Returns the pattern of the end of a call."""
    return _CLOSING.get(form) or re.compile(rf"</{re.escape(tag)}>", re.IGNORECASE)


@lru_cache(maxsize=64)
def named_forms(tools: frozenset[str]) -> re.Pattern[str]:
    """Returns the pattern of calls that are recognised by the name of a known tool.

    The group `tag` contains the name if it is written as a tag.
    """
    name = "|".join(re.escape(tool) for tool in sorted(tools, key=len, reverse=True))
    qualified = rf"(?:functions?\.)?(?:{name})"
    label = r"(?:action|(?:tool|function)(?:[ _]call)?|call|use|using)\**[ \t]*:\**[ \t]*"
    return re.compile(
        # A line that begins with the name, followed by the punctuation of a call.
        rf"^[ \t>*#`\[(\-]{{0,8}}"
        rf"(?:>>>|{label}|function[ \t]?|print\(|await |(?:default_api|tools?)\.){{0,3}}"
        rf"[*\"'`]{{0,3}}{qualified}(?::\d+)?[*\"'`]{{0,3}}"
        r"(?:\(|\[ARGS\]|[ \t]*[:=]?[ \t]*[{\[]|\s*\n\s*(?:```(?:json)?\s*)?[{\[]|\s*\Z)"
        rf"|^[ \t>*#`\-]{{0,8}}(?:action|(?:tool|function)[ _]call)\**[ \t]*:\**[ \t]*"
        rf"[*\"'`]{{0,3}}{qualified}\b"
        rf"|\A\W{{0,8}}{qualified}\W{{0,3}}:[ \t]"
        # The name as a tag, or with arguments at any place.
        rf"|<(?:functions?\.)?(?P<tag>{name})(?:\s[^<>]{{0,300}})?>"
        rf"|\b{qualified}(?:\((?=\s*(?:\w+\s*=|[\"'{{]))|(?::\d+)?\s?\{{(?=\s*[\"'\w]))",
        re.MULTILINE | re.IGNORECASE,
    )
