"""Finds tool calls that no server parsed, in any known form, in the text of a reply."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from agent.replies.call_forms import BARE_CALL, MARK, PARTS_OF_MARKS, PAYLOAD, closing, named_forms
from agent.replies.json_calls import call_beginning, closing_brace, is_json_call, named_call_starts
from agent.replies.quoting import Fence, Quoting
from agent.replies.thoughts import SPECIAL_TOKEN, Span
from agent.replies.visible import announces_call

TAGGED_CALL = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)
"""Hermes' form, which the agent executes. Without an end tag, a call extends to the end of the text."""
MAX_CALLS = 256  # reported in one text; the last one then extends to its end
_WHOLE_FENCE = re.compile(r"\A(?:```|~~~)[\w-]*[ \t]*\n(.*?)\n?(?:```|~~~)?\Z", re.DOTALL)
_WRAPPED = re.compile(r"<(?:answer|response|output)>(.*?)(?:</(?:answer|response|output)>)?", re.DOTALL)
_NAME = re.compile(
    r"[\"'](?:name|function|tool|tool_name|function_name|action)[\"']\s*:\s*[\"']([^\"'\n]{1,200})[\"']"
    r"|<function(?:=|\s+name=[\"']?)([\w.:-]{1,200})|\bname=[\"']([\w.:-]{1,200})[\"']"
    r"|\bto=(?:functions\.)?([\w.-]{1,200})|\bcall:([\w.-]{1,200})\{|([\w.-]{1,200})\[ARGS\]"
    r"|Action:\W{0,8}([\w.-]{1,200})|([A-Za-z_][\w.]{0,200})\("
)
_LINE_START = re.compile(r"^[ \t>]{0,4}(?=\{|\[\s*\{)", re.MULTILINE)
_EXAMPLE = re.compile(
    r"\b(?:example|sample|format|schema|looks?(?: \w+)? like|following|such as|e\.g\.|instance|shape)\b"
    r"|例|格式|ejemplo|exemple|exemplo|Beispiel|пример",
    re.IGNORECASE,
)
_AROUND = re.compile(r"[\s`;,\])}]*")
_LEADS = (
    (re.compile(r"\[ARGS\]"), re.compile(r"[\w.-]{1,200}\Z")),
    (re.compile(r"<\w"), re.compile(r"(?:assistant)?\s*\bto=[\w.-]{1,200}\Z")),
    (re.compile(r"to="), re.compile(r"(?:(?:assistant|commentary|analysis)\s*)+\Z")),
    (re.compile(r"[{\[]"), re.compile(r"(?:\bAction:\s*)?(?:```[\w-]*\s*)?[\[(\s]*\Z")),
)
"""Text before a call that belongs to it, by how the call begins."""


@dataclass(frozen=True)
class WrittenCall:
    """One call, or several in one block, as the model wrote it."""

    start: int
    end: int
    text: str
    name: str | None
    """Name of the tool; None if the call was cut off before it, or has an unknown layout."""

    def names(self, tool: str) -> bool:
        """Returns whether this is a call of the given tool."""
        return self.name == tool or tool in self.text


def find_calls(text: str, tools: Collection[str] = ()) -> list[WrittenCall]:
    """Finds the calls in a text, in order. A call that is quoted in an answer does not count.

    Args:
        text: a reply without its thoughts.
        tools: names of the tools that the model was offered. Calls of these are also found in forms that are
            ordinary text otherwise, such as `NAME(...)`.
    """
    known = frozenset(tool for tool in tools if tool)
    stripped = text.strip()
    if not stripped:
        return []
    if _is_bare_call(stripped, known):
        return [_call(text, 0, len(text), known)]
    spans = sorted([*_marked(text, known), *_named(text, known), *_json(text, known)])
    calls: list[WrittenCall] = []
    end = 0
    for start, stop in spans:
        if start < end:
            continue
        start = max(end, _with_lead(text, start))
        end = len(text) if len(calls) == MAX_CALLS - 1 else _with_remains(text, stop)
        calls.append(_call(text, start, end, known))
    return calls


def _is_bare_call(stripped: str, known: frozenset[str]) -> bool:
    """Returns whether a text is nothing but a call, perhaps in a code fence."""
    fenced = _WHOLE_FENCE.match(stripped)
    body = fenced[1].strip() if fenced else stripped.strip("`").strip()
    body = SPECIAL_TOKEN.sub("", body).strip() if len(body) < 10_000 else body
    if wrapped := _WRAPPED.fullmatch(body):
        body = wrapped[1].strip()
    if not body:
        return False
    if is_json_call(body, known) or body.strip("*\"'.") in known:
        return True
    if BARE_CALL.fullmatch(body):
        return True
    return (
        bool(known)
        and (fenced is not None or stripped[0] == "`")
        and named_forms(known).match(body) is not None
    )


def _marked(text: str, known: frozenset[str]) -> list[Span]:
    """Returns the calls that a mark of their form begins."""
    lowered = text.lower()
    is_line = "action" in lowered and "[" in lowered
    if not is_line and not any(part in lowered for part in PARTS_OF_MARKS):
        return []
    quoting = Quoting(text)
    spans: list[Span] = []
    end = 0
    for mark in MARK.finditer(text):
        form = mark.lastgroup or ""
        if mark.start() < end:
            continue
        start = mark.start()
        stop = _end_of(text, mark, form, quoting)
        fence = None if form == "fence" else quoting.fence_at(start)
        block = text[start:stop]
        if quoting.is_inline(*mark.span()):
            continue
        if fence is not None and not _fence_is_call(text, fence, known):
            continue
        if form in ("tag", "bracket") and not _is_call_tag(text, mark, block, known):
            continue
        spans.append((start, stop))
        end = stop
    return spans


def _end_of(text: str, mark: re.Match[str], form: str, quoting: Quoting) -> int:
    end = closing(form, mark["tag"] or mark["weak"] or mark["named"] or "").search(text, mark.end())
    if end is None:
        return len(text)
    return end.start() if form in ("react", "line", "rest") else end.end()


def _is_call_tag(text: str, mark: re.Match[str], block: str, known: frozenset[str]) -> bool:
    """Returns whether a tag such as `<tool_call>` opens a call, and is not a word of a sentence."""
    if any(tool in block for tool in known) or mark[0].lower().startswith("<invoke "):
        return True
    line = text[max(0, mark.start() - 200) : mark.start()].rpartition("\n")[2]
    if line.isspace() and len(line.expandtabs(4)) >= 4 and text[: mark.start()].strip():
        return False  # an indented block of code after a text
    if PAYLOAD.match(text, mark.end()):
        return True
    is_prose = text.startswith(" ", mark.end())
    return not line.strip() and not is_prose


def _fence_is_call(text: str, fence: Fence, known: frozenset[str]) -> bool:
    """Returns whether a code fence contains a call, and not an example of one."""
    body = text[fence.body : fence.body_end]
    if not text[: fence.start].strip() and not text[fence.end :].strip():
        return True
    return any(tool in body for tool in known) and not _is_example(text, fence.start)


def _is_example(text: str, position: int) -> bool:
    """Returns whether the sentence before a position announces an example."""
    before = text[max(0, position - 200) : position].rstrip()
    return _EXAMPLE.search(before.rpartition("\n")[2]) is not None


def _named(text: str, known: frozenset[str]) -> list[Span]:
    """Returns the calls that are recognised by the name of a known tool."""
    if not known or not any(tool.lower() in text.lower() for tool in known):
        return []
    quoting = Quoting(text)
    spans: list[Span] = []
    end = 0
    for match in named_forms(known).finditer(text):
        start = match.start()
        if start < end or quoting.is_inline(start, match.end()):
            continue
        fence = quoting.fence_at(match.end() - 1)
        if fence is not None and (
            _is_example(text, fence.start) or "def " in text[fence.body : fence.body_end]
        ):
            continue
        if match["tag"]:
            close = text.find(f"</{match['tag']}>", match.end())
            end = close + len(match["tag"]) + 3 if close >= 0 else len(text)
        elif match[0][-1] in "({[":
            end = closing_brace(text, match.end() - 1)
        else:
            end = len(text)
        spans.append((start, end))
    return spans


def _json(text: str, known: frozenset[str]) -> list[Span]:
    """Returns the calls in JSON: of a known tool anywhere, of another one at the start or at the end."""
    quoting = Quoting(text)
    spans: list[Span] = []
    end = 0
    for start in named_call_starts(text, known):
        if start < end or quoting.is_inline(start, start + 1):
            continue
        fence = quoting.fence_at(start)
        if fence is not None and _is_example(text, fence.start):
            continue
        end = closing_brace(text, start)
        spans.append((start, end))
        if end == len(text):
            break
    if (beginning := call_beginning(text)) is not None:
        spans.append((0, beginning))
    for line in _last_line_starts(text):
        stop = call_beginning(text, line)
        is_last = stop is not None and not text[stop:].strip("`\n \t")
        if stop is not None and is_last and not _is_example(text, line) and quoting.fence_at(line) is None:
            spans.append((line, stop))
    if fence := _last_fence(text, quoting):
        body = text[fence.body : fence.body_end].strip()
        if is_json_call(body, known) and announces_call(text[: fence.start].strip()):
            spans.append((fence.start, len(text)))
    return spans


def _last_fence(text: str, quoting: Quoting) -> Fence | None:
    """Returns the code fence with which a text ends, unless it is an example."""
    fence = quoting.fences[-1] if quoting.fences else None
    if fence is None or text[fence.end :].strip() or _is_example(text, fence.start):
        return None
    return fence


def _last_line_starts(text: str) -> list[int]:
    """Returns the last lines that begin with a brace; a call at the end of a reply begins at one of them."""
    return [match.end() for match in _LINE_START.finditer(text)][-8:]


def _with_remains(text: str, end: int) -> int:
    """Returns the end of a call with the punctuation and the special tokens after it."""
    while True:
        around = _AROUND.match(text, end)
        position = around.end() if around else end
        token = SPECIAL_TOKEN.match(text, position)
        if token is None or MARK.match(text, position):
            return position
        end = token.end()


def _with_lead(text: str, start: int) -> int:
    """Returns where the text that belongs to a call begins, such as `Action:` or the opening of a fence."""
    for begins, lead in _LEADS:
        if begins.match(text, start) and (found := lead.search(text, max(0, start - 200), start)):
            return found.start()
    return start


def _call(text: str, start: int, end: int, known: frozenset[str]) -> WrittenCall:
    block = text[start:end]
    name = next((tool for tool in sorted(known, key=len, reverse=True) if tool in block), None)
    if name is None and (found := _NAME.search(block)):
        name = next((group for group in found.groups() if group), None)
    return WrittenCall(start, end, block, name)
