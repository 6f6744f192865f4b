"""Divides a visible answer into segments, without quotations, drafts and code.

A refusal inside a quotation, a script, a letter that the user asked for, or reasoning in tags that the model
invented is not the model's refusal.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_HEAD, MAX_TAIL = 8000, 2000
"""Characters read at the start and at the end of an answer."""
MAX_SEGMENT = 500

_THOUGHTS = (
    r"(?:reason(?:ing|s)?|think(?:ing)?|thoughts?|thought_process|scratch_?pad|analysis|reflections?|rationale|"
    r"deliberation|inner_monologue|monologue|internal(?:_\w{1,20})?|cot|chain_of_thought|plan(?:ning)?|"
    r"seed:think|reasoning_content|safety_(?:check|analysis)|considerations?)"
)
_THOUGHT_TAG = re.compile(rf"[<\[◁](/?)({_THOUGHTS})[>\]▷]", re.IGNORECASE)
_THOUGHT_HEADING = re.compile(
    r"\A\W{0,4}(?:reasoning|thoughts?|thinking|analysis|internal (?:reasoning|thoughts?))\W{0,3}:(?:.*?)"
    r"\n\W{0,4}(?:final )?(?:answer|response|reply)\W{0,3}:",
    re.DOTALL | re.IGNORECASE,
)
_TAG = re.compile(r"</?[a-zA-Z][\w:-]{0,30}(?: [^<>\n]{0,100})?/?>")
_FENCE = re.compile(r"```[^\n`]*\n(.*?)(?:```|\Z)|~~~[^\n]*\n(.*?)(?:~~~|\Z)", re.DOTALL)
_INLINE_CODE = re.compile(r"`[^`\n]{1,200}`")
_MATHS = re.compile(r"\$\$.{1,500}?\$\$|\\\[.{1,500}?\\\]|\\\(.{1,500}?\\\)|\$[^$\n]{1,200}\$", re.DOTALL)
_QUOTE = re.compile(
    r'"[^"\n]{1,600}"|“[^“”]{1,1200}”|„[^„“”]{1,1200}[“”]|«[^«»]{1,1200}»|»[^«»]{1,1200}«|「[^「」]{1,1200}」'
    r"|『[^『』]{1,1200}』|《[^《》]{1,200}》|(?<!\w)'[^'\n]{1,300}'(?!\w)|(?<!\w)‘[^‘’\n]{1,300}’(?!\w)"
)
_ASCII_QUOTE = re.compile(r"\"[^\"\n]{1,600}\"|'(?<!\w')[^'\n]{1,300}'(?!\w)")
_SINGLE_QUOTE = re.compile(r"'(?<!\w')[^'\n]{1,300}'(?!\w)")
_QUOTE_MARK = re.compile(r"[\"“„«»「『《‘]|(?<!\w)'")
_WHOLE_QUOTE = re.compile(r"\A\s*[\"“„«»「『'‘]([^\"“”„«»「」『』]*)[\"“”«»」』'’]\s*\Z")
_BLOCK_QUOTE = re.compile(r"^[ \t]*>[^\n]*$", re.MULTILINE)
_SPEECH_DASH = re.compile(r"^[ \t]*[—―][^\n]{1,600}$", re.MULTILINE)
_SCRIPT_LINE = re.compile(
    r"^[ \t]*(?:\*\*)?([^\W\d_][\w .'’]{0,24}?)(?:\*\*)?(?:\s*\([^()\n]{0,40}\))?(?:\*\*)?[:：](?:\*\*)? *\S[^\n]*$",
    re.MULTILINE,
)
_NO_SPEAKER = re.compile(
    r"(?i)(?:note|answer|response|assistant|ai|reply|warning|important|disclaimer|step|tip|example|reason|nota|"
    r"respuesta|antwort|hinweis|reponse|réponse|resposta|ответ|примечание|回答|答|注意|注|答え|답변|참고|الجواب|ملاحظة|उत्तर|नोट)\b.{0,12}\Z"
)
_SALUTATION = re.compile(
    r"^[ \t]*(?:subject|betreff|asunto|objet|assunto|oggetto|тема|主题|主旨|件名|제목|الموضوع|विषय)[ \t]*[:：]"
    r"|^[ \t]*(?:dear|hi|hello|hey|sehr geehrte\w*|liebe[rs]?|estimad\w+|querid\w+|hola|bonjour|ch[eè]re?|madame|"
    r"monsieur|prezad\w+|car[oa]|ol[aá]|gentile|egregi\w*|уважаем\w+|дорог\w+|尊敬的|亲爱的|عزيزي|عزيزتي|السيد|السادة|الاستاذ|प्रिय|आदरणीय)"
    r"[^.\n]{0,60}[,:!，：،]?[ \t]*$|^[^\n]{1,30}様[ \t]*$|^[^\n]{1,30}(?:님께|께)[,]?[ \t]*$",
    re.IGNORECASE | re.MULTILINE,
)
# The salutation of a letter to a person with a title; an answer may greet its reader, but not by title and name.
_FORMAL = re.compile(
    r"^[ \t]*(?:dear|sehr geehrte[rs]?|estimad[oa]s?|cher|chere|prezad[oa]s?|gentile|egregi[oa]|уважаем\w+|عزيزي|السادة|السيد|الاستاذة?|आदरणीय)"
    r"[ \t]+(?:mr|mrs|ms|dr|prof|herr|frau|hiring|sr|sra|senor\w*|monsieur|madame|dra|dott|signor\w*|господин|госпожа|[а-я]+ [а-я]+(?:вич|вна)|"
    r"(?:ال)?(?:سيد|سيدة|دكتور|استاذ|افاضل|مدير|كرام)|\S+ जी|श्री|महोदय|महोदया)\b[^\n.!?]{0,2}[^\n!?]{0,50}$",
    re.MULTILINE,
)
# A letter in one paragraph: it opens with a name and ends with a signature.
_NOTE = re.compile(
    r"\A\W*(?:dear|hi|hello|hey|sehr geehrte\w*|liebe[rs]?|hallo|estimad\w+|querid\w+|hola|bonjour|(?:mon |ma )?ch[eè]re?|prezad\w+|"
    r"car[oa]|ol[aá]|gentile|уважаем\w+|дорог\w+|尊敬的|亲爱的|عزيزي|عزيزتي|प्रिय|आदरणीय)[^,.!:\n，：！]{1,30}[,.!:，：！]"
)
_SIGNED = re.compile(
    r"[.!?。！？؟।]\s*(?:[—–-] ?[^.!?\n]{2,30}|(?:best|(?:kind |best |warm )?regards|cheers|love|sincerely|thanks|yours|dein|deine|dei|ihr|eure?r?|mit freundlichen|"
    r"viele|liebe|herzliche|tu|tuy[oa]|saludos|un (?:saludo|abrazo)|besos|atentamente|ta|ton|votre|bises|cordialement|amiti[eé]s|abra[cç]os?|atenciosamente|beijos|"
    r"cordiali|un saluto|с уважением|тво[йя]|ваш\w?|обнимаю|此致|祝|مع|ابنك|ابنتك|سلام|सादर|तुम्हार\w?|आपका|आपकी)\b[^.!?\n]{0,40})\W*\Z"
)
_SIGN_OFF = re.compile(
    r"^[ \t]*(?:(?:best|kind|warm|many)? ?(?:regards|wishes|thanks)|sincerely|yours\b[^\n]{0,20}|cheers|love|thank you|"
    r"mit freundlichen gr[uü]|viele gr[uü]|liebe gr[uü]|herzliche gr|beste gr|atentamente|saludos|un (?:cordial )?saludo|un (?:fuerte )?abrazo|besos|"
    r"cordialement|bien [aà] (?:vous|toi)|sinc[eè]res|veuillez agr[eé]er|atenciosamente|cordialmente|abra[cç]os?|cordiali saluti|"
    r"distinti saluti|с уважением|с наилучшими|此致|敬礼|祝好|敬具|よろしくお願い|드림|올림|감사합니다|مع (?:خالص )?(?:التحية|تحيات)|"
    r"وتفضلوا|सादर|धन्यवाद|आपका|भवदीय)[^\n]{0,60}$|(?:よろしくお願い|お願い申し)[^\n]{0,14}$|\[(?:your|dein|ihr|tu|su|votre|seu|ваше|你的|您的|お名前|이름|اسمك|आपका)[^\]\n]{0,30}\]",
    re.IGNORECASE | re.MULTILINE,
)
_JAPANESE_LETTER = re.compile(r"(?:拝啓|謹啓|前略)[\s\S]{1,1500}?(?:敬具|謹白|草々|かしこ)")
_ITEM = re.compile(
    r"[ \t]{0,12}(?:\d{1,3}[.)、]|[(（]\d{1,3}[)）]|[-*•–·・]|[①-⑳]|第[一二三四五六七八九十]步)[ \t]*(?=\S)"
)
# A sentence end, or a clause that turns: what follows "but" may be the opposite of what precedes it.
_TURNS = (
    "but|however|yet|although|though|pero|sin embargo|aunque|aber|jedoch|allerdings|doch|mais|cependant|toutefois|mas|porem|"
    "contudo|ma|pero|tuttavia"
)
_BREAK = re.compile(
    rf"[.!?;…][\"”»')\]]*\s+|[。！？；।؟؛]\s*|[,，、—–]\s*(?=(?:{_TURNS}|но|однако|зато)\b"
    r"|但|不过|然而|可是|しかし|ただ|하지만|그러나|다만|لكن|ولكن|लेकिन|परंतु|मगर|किंतु)"
)
# What is left of a pattern in a text of ASCII characters, in half the time.
_ASCII_BREAK = re.compile(rf"[.!?;][\"')\]]*\s+|,\s*(?=(?:{_TURNS})\b)")
_TURN_WITHOUT_COMMA = re.compile(
    r"\s+(?=(?:लेकिन|परंतु|मगर|ولكن|لكن) )|(?<=지만),?\s+|(?<=ですが)、|(?<=ますが)、|(?<=んが)、"
)


class Segment(NamedTuple):
    """A sentence or clause; `is_item` if it begins an item of a list."""

    text: str
    is_item: bool
    is_question: bool


class Reading(NamedTuple):
    """An answer divided. `code_lines` counts lines of code, `maths` formulas, `quoted` removed characters."""

    segments: tuple[Segment, ...]
    code_lines: int = 0
    maths: int = 0
    quoted: int = 0


def ends_of(answer: str) -> str:
    """Returns the parts of an answer that are read: all of it, unless it is very long."""
    if len(answer) <= MAX_HEAD + MAX_TAIL:
        return answer
    return f"{answer[:MAX_HEAD]}\n{answer[-MAX_TAIL:]}"


def read_segments(text: str) -> Reading:
    """Divides a text after `normalise`. Without any text outside tagged reasoning, that is the answer."""
    text = _without_thoughts(text).strip() or _TAG.sub(" ", text).strip() or text
    text, code_lines = _without_code(text)
    maths = len(_MATHS.findall(text)) if "$" in text or "\\" in text else 0
    if maths:
        text = _MATHS.sub(" 0 ", text)
    if whole := _WHOLE_QUOTE.match(text):
        text = whole[1]
    spoken = _without_speech(text)
    segments = tuple(_segments(spoken))
    return Reading(segments, code_lines, maths, len(text) - len(spoken))


def _without_thoughts(text: str) -> str:
    if "<" in text or "[" in text:
        text = _without_thought_blocks(text)
        if "<" in text:
            text = _TAG.sub(" ", text)
    return _THOUGHT_HEADING.sub(" ", text) if ":" in text[:40] else text


def _without_thought_blocks(text: str) -> str:
    """Removes tagged reasoning; what precedes an end tag without a start tag is reasoning too."""
    kept, at, inside = [], 0, ""
    for tag in _THOUGHT_TAG.finditer(text):
        closes, name = bool(tag[1]), tag[2].lower()
        if not inside and not closes:
            kept.append(text[at : tag.start()])
            inside = name
        elif closes and not inside:
            if name.startswith(
                "think"
            ):  # `visible_answer` has removed it, unless the answer is about the tag
                continue
            kept = []
        elif not closes or name != inside:
            continue
        else:
            inside = ""
        at = tag.end()
    # An open tag in brackets may be ordinary text; one in angle brackets was cut off inside the reasoning.
    if not inside or text[at - 1] == "]":
        kept.append(text[at:])
    return " ".join(kept)


def _without_code(text: str) -> tuple[str, int]:
    """Removes fenced and inline code, unless the answer is nothing else and reads like prose."""
    if "`" not in text and "~~~" not in text:
        return text, 0
    blocks = [match[1] or match[2] or "" for match in _FENCE.finditer(text)]
    outside = _FENCE.sub("\n", text)
    if blocks and not outside.strip() and not re.search(r"[=;{}<>]|\(\)", blocks[0]):
        return "\n".join(blocks), 0
    lines = sum(block.count("\n") + 1 for block in blocks)
    return _INLINE_CODE.sub(" 0 ", outside), lines


def _without_speech(text: str) -> str:
    """Removes quotations, dialogue and letters: words that are not the answer's own."""
    if ">" in text:
        text = _BLOCK_QUOTE.sub("", text) if _BLOCK_QUOTE.sub("", text).strip() else text
    if (
        text.lstrip().startswith(("—", "―"))
        and text.count("—") + text.count("―") >= 2
        and "\n" not in text.strip()
    ):
        return ""  # a line of dialogue with its narrator
    if "—" in text or "―" in text:
        rest = _SPEECH_DASH.sub("", text)
        text = rest if rest.strip() else text
    if ":" in text or "：" in text:
        text = _without_script(text)
    text = _without_letter(text)
    if text.isascii():
        quote = _ASCII_QUOTE if '"' in text else _SINGLE_QUOTE
        is_quoted = '"' in text or "'" in text
    else:
        quote, is_quoted = _QUOTE, _QUOTE_MARK.search(text) is not None
    rest = quote.sub(_quoted, text) if is_quoted else text
    return rest if rest.strip(" 0\n") else text


def _quoted(match: re.Match[str]) -> str:
    """Keeps quotations of one or two words: a term, or a word that the answer rejects."""
    words = match[0][1:-1]
    is_term = len(words.split()) <= 2 and len(words) <= (24 if words.isascii() else 4)
    is_term = is_term and not words.endswith((".", ",", "!", "?", "。", "，", "！", "？"))
    return words if is_term else " 0 "


def _without_script(text: str) -> str:
    lines = [m for m in _SCRIPT_LINE.finditer(text) if not _NO_SPEAKER.match(m[1])]
    speakers = [match[1].strip().lower() for match in lines]
    # A script has at least two speakers, and one of them speaks twice; a list of definitions has neither.
    if len(set(speakers)) < 2 or (len(set(speakers)) == len(speakers) and len(speakers) > 2):
        return text
    if any(_ITEM.match(match[0]) for match in lines):
        return text
    kept, at = [], 0
    for match in lines:
        kept.append(text[at : match.start()])
        at = match.end()
    rest = "".join([*kept, text[at:]])
    return rest if rest.strip() or len(lines) > 1 else text


def _without_letter(text: str) -> str:
    if _NOTE.match(text) and _SIGNED.search(text):
        return ""
    if "啓" in text or "前略" in text:
        text = _JAPANESE_LETTER.sub("", text)
    opening = _first_line(_SALUTATION, text)
    ending = max(_SIGN_OFF.finditer(text), key=lambda match: match.start(), default=None) if opening else None
    if not opening or not ending or ending.start() <= opening.end():
        return _without_unsigned_letter(text)
    return f"{text[: opening.start()]}\n{text[ending.end() :]}"


def _without_unsigned_letter(text: str) -> str:
    """Removes a letter that has no ending; a question after it is for the user."""
    opening = _first_line(_FORMAL, text)
    if not opening:
        return text
    last = text.rstrip().rsplit("\n", 1)[-1]
    return f"{text[: opening.start()]}\n{last if last.endswith(('?', '؟', '？')) else ''}"


def _first_line(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    """Returns the first match at the start of a line; a search would try every position."""
    at = 0
    while True:
        if match := pattern.match(text, at):
            return match
        at = text.find("\n", at) + 1
        if at == 0:
            return None


def _segments(text: str) -> list[Segment]:
    found: list[Segment] = []
    for line in text.split("\n"):
        if not line or line.isspace():
            continue
        item = _ITEM.match(line)
        is_item = item is not None
        at = item.end() if item else 0
        for piece in _pieces(line, at):
            for start in range(0, len(piece), MAX_SEGMENT):
                part = piece[start : start + MAX_SEGMENT].strip()
                if part:
                    found.append(Segment(part, is_item, part.rstrip("\"'”»)* ").endswith(("?", "？", "؟"))))
                    is_item = False
    return found


def _pieces(line: str, at: int) -> list[str]:
    pieces = []
    is_ascii = line.isascii()
    for match in (_ASCII_BREAK if is_ascii else _BREAK).finditer(line, at):
        pieces.append(line[at : match.end()])
        at = match.end()
    pieces.append(line[at:])
    if is_ascii:
        return pieces
    return [part for piece in pieces for part in _TURN_WITHOUT_COMMA.split(piece)]
