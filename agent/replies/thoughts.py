"""Separates the thoughts in a reply from the rest, by the tags of the models' chat templates.

A tag counts only at a place where models write it: at the start of the reply, or where a block of thoughts
ends. A tag in code, in quotation marks or in the middle of a sentence is part of the text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from agent.replies.quoting import Quoting

Span = tuple[int, int]
"""First position and end."""

_WORD = r"(?:think|thinking|thoughts?|reasoning)(?:_(?:process|content|steps?))?"
_PREFIX = r"(?:[a-z][\w-]{0,20}[:_])?"  # <seed:think>, <longcat_think>
# Opening and closing tag of each family; a block ends at the first closing tag of its family.
_FAMILIES = (
    # Qwen, DeepSeek, GLM, MiniMax, Nemotron, EXAONE, Seed-OSS
    (rf"<{_PREFIX}{_WORD}(?:\s[^<>\n]{{0,80}})?>", rf"</{_PREFIX}{_WORD}\s*>"),
    # Cohere, OpenThinker, Skywork
    (
        rf"<\|(?:(?:begin|start)_?(?:of_?)?)?{_WORD}(?:_?(?:begin|start))?\|>",
        rf"<\|(?:/|end_?(?:of_?)?){_WORD}\|>|<\|{_WORD}_?end\|>",
    ),
    (r"(?-i:\[THINK(?:ING)?\])", r"(?-i:\[/THINK(?:ING)?\])"),  # Magistral
    (r"◁think▷", r"◁/think▷"),  # Kimi
    (r"<unused94>(?:thought\b)?", r"<unused95>"),  # MedGemma
    (r"<\|channel>(?:thought|analysis)\b", r"<channel\|>"),  # Gemma 4
    (r"<\|inner_prefix\|>", r"<\|inner_suffix\|>"),  # Apertus
    (r"\[unused16\]", r"\[unused17\]"),  # openPangu
)
_TAG = re.compile(
    r"(?=[<\[◁])(?:"
    + "|".join(f"(?P<o{i}>{opening})|(?P<c{i}>{closing})" for i, (opening, closing) in enumerate(_FAMILIES))
    + ")",
    re.IGNORECASE,
)
# Forms that occur only at the start of a reply. Without its end, the first one is an ordinary sentence.
_GRANITE = re.compile(r"\s*Here(?: is|['’]s) my thought process:")
_GRANITE_END = re.compile(r"Here(?: is|['’]s) my response:")
_FIRST_CHARACTERS = "<[◁"  # of a tag
# gpt-oss and Muse without their special tokens
_BARE_CHANNEL = re.compile(r'\s*(?:analysis(?=[A-Z"])|to=self(?=[^<\s]))')
_BARE_CHANNEL_END = re.compile(r"assistantfinal|assistant to=user|(?=assistant\s?(?:commentary\s?)?to=)")
# Names that an answer may use for its own parts: thoughts only if they are closed and something follows.
_WEAK = re.compile(
    r"\s*<(analysis|scratch_?pad|reflection|rationale|(?:inner_|internal_)?monologue|cot|planning)>"
)
_OPENING_AT_END = re.compile(rf"(?:{'|'.join(opening for opening, _ in _FAMILIES)})\s*\Z", re.IGNORECASE)
SPECIAL_TOKEN = re.compile(
    r"<[|｜][^<>|｜\s]{1,60}[|｜]>|<(?:start|end)_of_turn>|<turn\|>|<\|turn>|\[/?INST\]|<eos>|<bos>"
    r"|</?[|｜]DSML[|｜][^<>\n]{0,200}>"
)
"""Special tokens of chat templates, which a server may leave in the text."""
BLANKS_AND_TOKENS = re.compile(rf"(?:\s|{SPECIAL_TOKEN.pattern})*")
_LIST_MARK = re.compile(r"[ \t]*(?:[-*+•]|\d{1,3}[.)])[ \t]+")
_SENTENCE_END = ".!?。！？…>"
_MAX_LINE = 200  # characters before a tag that are examined


@dataclass(frozen=True)
class Thoughts:
    """The positions of the thoughts in a reply."""

    blocks: list[Span] = field(default_factory=list)
    """Blocks of thoughts, tags included, in order."""
    unfinished: bool = False
    """Whether the last block is not closed, so that the reply ends inside its thoughts."""
    opened_in_prompt: bool = False
    """Whether the reply closes thoughts that it did not open."""
    misplaced: bool = False
    """Whether there are thoughts outside one closed block at the start (its opening may be in the prompt)."""

    def outside(self, text: str) -> str:
        """Returns the text without the thoughts; `text` itself if there are none."""
        if not self.blocks:
            return text
        parts, end = [], 0
        for block in self.blocks:
            parts.append(text[end : block[0]])
            end = block[1]
        return " ".join([*parts, text[end:]])

    def inside(self, text: str) -> str:
        """Returns the thoughts without their tags, one block per paragraph."""
        return "\n".join(_TAG.sub("", text[start:end]).strip() for start, end in self.blocks)


def opens_thoughts(prompt: str) -> bool:
    """Returns whether a rendered prompt ends with an opening tag, so that the reply begins with thoughts."""
    return _OPENING_AT_END.search(prompt[-_MAX_LINE:]) is not None


def find_thoughts(text: str, *, opened: bool = False) -> Thoughts:
    """Finds the thoughts in a reply.

    Args:
        text: the reply as the model wrote it, with or without special tokens.
        opened: whether the prompt is known to end with an opening tag; a reply without a closing tag then
            consists of thoughts only.
    """
    if begun := _BARE_CHANNEL.match(text):
        end = _BARE_CHANNEL_END.search(text, begun.end())
        return Thoughts([(0, end.end() if end else len(text))], unfinished=end is None)
    if (begun := _GRANITE.match(text)) and (end := _GRANITE_END.search(text, begun.end())):
        return Thoughts([(0, end.end())])
    if (begun := _WEAK.match(text)) and not opened:
        before, closing, after = text.partition(f"</{begun[1]}>")
        if closing and after.strip():
            return Thoughts([(0, len(before) + len(closing))])
    if not opened and not any(first in text for first in _FIRST_CHARACTERS):
        return Thoughts()
    return _Scan(text).run(opened)


class _Scan:
    """One pass over the tags of a reply."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._quoting = Quoting(text)
        start = BLANKS_AND_TOKENS.match(text)
        self._leading_end = start.end() if start else 0
        self._mentioned: set[int] = set()
        """Families with an opening tag that is only mentioned: a closing tag after it may be, too."""

    def run(self, opened: bool) -> Thoughts:
        """Returns the blocks that the tags form."""
        blocks: list[Span] = []
        start = 0 if opened else None  # of the block that is open
        family: int | None = None  # of its opening tag; None if that is in the prompt
        opened_in_prompt = misplaced = False
        for tag in _TAG.finditer(self._text):
            kind = tag.lastgroup or ""
            number, is_leading = int(kind[1:]), tag.start() <= self._leading_end
            if kind[0] == "o":
                if start is None and (is_leading or not self._is_mention(tag, in_thoughts=False)):
                    start, family = tag.start(), number
                    misplaced |= not is_leading
                elif start is not None and family is None and is_leading:
                    family = number  # the reply repeats the tag of the prompt
                elif start is None or self._is_mention(tag, in_thoughts=True):
                    self._mentioned.add(number)
            elif start is not None and family not in (None, number):
                continue
            elif self._closes(tag, number, in_thoughts=start is not None):
                opened_in_prompt |= family is None
                if start is None:
                    start = blocks[-1][1] if blocks else 0
                blocks.append((start, tag.end()))
                start, family = None, None
                self._mentioned.clear()
        if start is not None:
            blocks.append((start, len(self._text)))
            misplaced |= family is not None
        return Thoughts(blocks, start is not None, opened_in_prompt, misplaced or len(blocks) > 1)

    def _closes(self, tag: re.Match[str], family: int, *, in_thoughts: bool) -> bool:
        """Returns whether a closing tag ends thoughts, and is not only mentioned."""
        start, end = tag.span()
        if self._quoting.is_inline(start, end):
            return False
        was_mentioned = family in self._mentioned
        ends_line = self._text.startswith("\n", end) and not (was_mentioned and self._text[start - 1] == " ")
        is_alone = not self._line_before(start).strip() or ends_line
        if not in_thoughts and self._quoting.fence_at(start) is not None:
            return not was_mentioned and self._text.startswith("\n\n", end)
        if is_alone:
            return True
        if was_mentioned:
            self._mentioned.discard(family)
            return False
        return not self._is_mention(tag, in_thoughts)

    def _is_mention(self, tag: re.Match[str], in_thoughts: bool) -> bool:
        """Returns whether a tag is quoted or in the middle of a sentence."""
        start, end = tag.span()
        if self._quoting.is_inline(start, end):
            return True
        if not in_thoughts and self._quoting.is_fenced(start):
            return True
        line, after = self._line_before(start), self._text[end : end + 1]
        if not line.strip():
            return False
        if _LIST_MARK.fullmatch(line):
            return after != "\n"
        if not line[-1].isspace() or line.rstrip()[-1] in _SENTENCE_END:
            return False
        return not after.isalnum()

    def _line_before(self, position: int) -> str:
        return self._text[max(0, position - _MAX_LINE) : position].rpartition("\n")[2]
