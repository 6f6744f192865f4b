"""Detects whether a text has content for a user."""

from __future__ import annotations

import re
import unicodedata

from agent.replies.thoughts import BLANKS_AND_TOKENS, SPECIAL_TOKEN

MAX_CHARS = 200_000  # of an answer
_TOKEN_AT_END = re.compile(rf"(?:{SPECIAL_TOKEN.pattern})\Z")
_HEADER = re.compile(r"\Aassistant[ \t]*(?:\n\s*|\Z)")  # of Llama's and Qwen's turns, without its tokens
_END_OF_LLAMA = "</s>"
_MAX_TOKEN = 80  # characters
_WRAPPER = re.compile(
    r"</?(?:answer|response|output|final|final_answer|solution)>|^[ \t]*(?:```|~~~)[\w-]*[ \t]*$",
    re.MULTILINE,
)
_LIST_MARKS = re.compile(r"(?:\s*(?:\d{1,3}[.)]|[-*+•])[ \t]*(?:\n|\Z)){2,}\s*")
_MAX_ANNOUNCEMENT = 300
_LOOK_UP = (
    r"(?:check|consult|look|search|see|review|verify|call|use|query|find|fetch|read|retrieve|confirm"
    r"|ask|get|run)"
)
_INTENT = (
    r"(?:let me|let['’]?s|let us|allow me"
    r"|i(?:['’]?ll| will| shall|['’]?m going to| am going to|['’]?d like to| would like to| need to| should"
    r"| must| want to| have to| can)|first|before (?:i answer|answering|responding))"
)
_ANNOUNCEMENT = re.compile(
    rf"\b{_INTENT}\b[^.!?\n]{{0,60}}\b{_LOOK_UP}\w*\b"
    rf"|\b{_LOOK_UP}(?:t|p|n)?ing\b[^.!?\n]{{0,80}}(?:\.{{3}}|…|:)"
    r"|\b(?:one moment|just a (?:moment|second|minute)|hold on|give me a (?:moment|second))\b"
    r"|\A(?:sure|of course|okay|ok|certainly|absolutely|alright|great|got it|understood)\b.{0,40}\Z"
    r"|\A(?:thought|thinking)(?::|\n)"  # ReAct; Gemma 4 without its tokens
    # Chinese, Japanese, Korean
    r"|(?:让我|我来|我先|我将|我会|需要)[^。\n]{0,20}(?:查|看|咨询|调用|搜索|参考)|稍等|请稍"
    r"|(?:確認|調べ|参照|検索)[^。\n]{0,10}(?:ます|ましょう|みる)"
    r"|(?:확인|찾아|검색|조회)[^.\n]{0,10}(?:겠|보)"
    # Spanish, French, German, Portuguese, Italian, Russian
    r"|\b(?:voy a|d[ée]jame|perm[íi]teme|necesito|primero)\b[^.\n]{0,60}\b(?:consult|comprob|revis|busc)"
    r"|\b(?:je vais|laissez?-moi|permettez-moi|je dois)\b[^.\n]{0,60}\b(?:consult|v[ée]rifi|cherch|regard)"
    r"|\b(?:(?:ich (?:werde|muss|möchte)|lass(?:en sie)? mich|zuerst)\b[^.\n]{0,60}"
    r"(?:nach|prüf|schau|konsult|such|seh|frag)|ich (?:prüfe|schaue|suche|frage|sehe|konsultiere)\b)"
    r"|\b(?:vou|deixe-me|deixa-me|preciso)\b[^.\n]{0,60}\b(?:consult|verific|procur|ver\b|chec)"
    r"|\b(?:lasciami|fammi|devo|controllo|consulto|verifico)\b"
    r"|(?:позвольте|давайте|сейчас|мне нужно|сначала)[^.\n]{0,60}(?:провер|посмотр|обрат|уточн|найд|поищ)",
    re.IGNORECASE,
)
"""A sentence that announces a look-up."""


def visible_text(text: str) -> str:
    """Returns a text without special tokens at its ends, cut to `MAX_CHARS`; "" if it has no content.

    Content is a letter, a digit or a symbol such as an emoji, outside of markup.
    """
    text = _strip(text)
    if header := _HEADER.match(text):
        text = text[header.end() :]
    text = text[:MAX_CHARS]
    if _LIST_MARKS.fullmatch(text):
        return ""
    has_wrapper = "<" in text or "```" in text or "~~~" in text
    says = any(_is_content(character) for character in (_WRAPPER.sub("", text) if has_wrapper else text))
    return text if says else ""


def announces_call(text: str) -> bool:
    """Returns whether a text before a call only announces it, as in "Let me check the rules."."""
    if len(text) > _MAX_ANNOUNCEMENT:
        return False
    return text.endswith((":", "：", "...", "…")) or _ANNOUNCEMENT.search(text) is not None


def _strip(text: str) -> str:
    """Returns a text without blanks and special tokens at its ends, in linear time."""
    prefix = BLANKS_AND_TOKENS.match(text)
    start, end = prefix.end() if prefix else 0, len(text)
    if text.endswith(_END_OF_LLAMA) and "<s>" not in text:  # otherwise it is HTML
        end -= len(_END_OF_LLAMA)
    while start < end:
        if text[end - 1].isspace():
            end -= 1
        elif token := _TOKEN_AT_END.search(text, max(start, end - _MAX_TOKEN), end):
            end = token.start()
        else:
            break
    return text[start:end]


def _is_content(character: str) -> bool:
    """Returns whether a character is a letter, a digit or a symbol such as an emoji, but not Markdown."""
    category = unicodedata.category(character)
    return category[0] in "LN" or (category[0] == "S" and not character.isascii())
