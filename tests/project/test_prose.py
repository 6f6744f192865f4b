"""Refuses phrases that a native engineer would not write, in comments, docstrings, messages and guides.

Checked: comments and docstrings of all code, other strings of the packages (help texts, error messages), and
Markdown. Not checked: the rulebook, prompts, demonstrations and patterns of model output.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("rule_server", "agent", "evaluation", "trainer")
AREAS = (*PACKAGES, "benchmarks", "demo", "deploy", "tests", "docs", "the top")
PHRASES = {
    r"\bbe had\b": "be obtained, fetch",
    r"\bof (ours|theirs|hers)\b": "our, their",
    r"\b(is|are|was|were|be|been|being) told\b": "name the sender: the agent receives, the log records",
    r"\b(go|goes|going|went|gone) on\b": "continue, resume",
    r"\b(who|whom|what|which)ever\b": "anyone who, any, every",
    r"\bwhat came of\b": "the result",
    r"\bbears?\b": "accepts, carries",
    r"\b(come|comes|came) along\b": "is returned too",
    r"\bless (what|that|those)\b": "without",
    r"\b(find|finds|found|finding) (\w+ ){0,3}out\b": "detect, probe",
    r"\banew\b": "again",
    r"\breckon\w*": "estimate, compute",
    r"\bfor want of\b": "because ... is missing",
    r"\b(mend|mends|mended|mending)\b": "fix",
    r"(?<!there )\b(is|are|was|were) no (?!longer\b|more\b|one\b|such\b)": "is not a",
    r"\bat the most\b": "at most",
    r"(?<!one )\bpass(es|ed)? over\b": "skip",
    r"\b(thereof|therein|wherein|whereby|hitherto|hence|thence|whence|lest|betimes|aught)\b": "plain words",
    r"\bin hand\b": "in memory",
    r"\ba word on\b": "say what it is",
    r"\bof before\b": "earlier, previous",
    r"\bas it came\b": "unchanged",
    r"\bas (they|it) (stand|stands)\b": "unchanged",
    r"\bon paper\b": "by hand",
    r"\bin (its|their) stead\b": "instead",
    r"\bhas its say\b": "decides",
    r"\b(said|told|noted) so\b": "recorded",
    r"\bmanners\b": "behaviour",
    r"\ba (line|span|row|file|rule|token|step|prompt|seed|call) an? "
    r"(line|request|consultation|rule|prompt|step|kind|second|token|seed|run|episode|event|log|day)\b": "per",
    r"\bset aside\b": "rotated, moved",
    r"\bso many\b": "at most N, a number of",
    r"\bof one's own\b": "your own",
    r"\bthe very (?!least|first|last|same|beginning|end)": "the same, exactly the",
    r"\btells? of\b": "reports",
    r"\b(tell|tells|told) (\w+ ){0,4}apart\b": "distinguish",
    r"\b(earlier|failed|later|own) tr(y|ies)\b": "attempt",
    r"\bin turns\b": "alternately",
    r"\bbut for\b": "except for",
    r"\b(is|are|was|were) let\b": "accepted, may",
    r"\bfor good\b": "permanently",
    r"\b(None|empty|0|one) without (one|any)\b": "if there is none",
    r"\b(caller|client) (is|was|were) sent\b": "receives, was sent to the caller",
    r"\b(one|\w+ (message|value)|\w+ demonstrations) a (line|turn|version|step|episode|day|row)\b": "per",
    r"\bnext to (nothing|no|impossible)\b": "almost no",
    r"\bto the (last )?bit\b": "bit for bit",
    r"\botherwise than\b": "not as",
    r"\ball the same\b": "nevertheless",
    r"\bby (the user's|its own) word\b": "according to",
    r"\b(others?|one|those) say the same\b": "equivalent",
}
"""Phrase -> what to write in its place."""
OPENINGS = re.compile(r"(What|Who|Whose)\b")
"""A docstring begins with what the thing is or does: a noun or a verb."""
UNCHECKED = re.compile(
    r"rules/|.*\.jsonl$|.*/prompts/.*\.md$|.*/system-\d+\.md$|evaluation/scorers/refusal/patterns/"
    r"|evaluation/scorers/judges/(rubrics|guards)\.py|rule_server/retrieval/background/|LICENSE"
    r"|trainer/stages/sft/demonstrations/edited_rules\.py|tests/project/test_prose\.py"
)
Passage = tuple[int, str]
"""Line number and text."""


def files_of(area: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.py", "*.md"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    ).stdout.split()
    inside = [f for f in listed if (f.partition("/")[0] if "/" in f else "the top") == area]
    return [ROOT / file for file in inside if not UNCHECKED.match(file) and (ROOT / file).is_file()]


def docstrings(tree: ast.Module) -> Iterator[Passage]:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for at, child in enumerate(body if isinstance(body, list) else []):
            bare = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
            if bare and isinstance(child.value.value, str):
                owner = at == 0 and isinstance(
                    node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
                )
                yield (child.lineno if owner else -child.lineno), child.value.value


def passages(file: Path, area: str) -> Iterator[Passage]:
    """Yields comments, docstrings and, in the packages, other strings; for Markdown, its lines."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".md":
        yield from ((at, line) for at, line in enumerate(text.splitlines(), 1) if not line.startswith("    "))
        return
    tree = ast.parse(text)
    yield from ((abs(line), found) for line, found in docstrings(tree))
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    if area in PACKAGES:
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.lineno, node.value


def faults(file: Path, area: str) -> set[str]:
    name, found = file.relative_to(ROOT), set()
    for line, text in passages(file, area):
        flat = " ".join(text.split())
        for phrase, better in PHRASES.items():
            if match := re.search(phrase, flat, re.IGNORECASE):
                found.add(f"{name}:{line}: {match.group()!r} (write: {better})")
    if file.suffix == ".py":
        for line, text in docstrings(ast.parse(file.read_text(encoding="utf-8"))):
            if OPENINGS.match(text.strip()):
                found.add(
                    f"{name}:{abs(line)}: begins with {text.strip().split()[0]!r} (write a noun or a verb)"
                )
    return found


@pytest.mark.parametrize("area", AREAS)
def test_no_phrase_that_a_native_engineer_would_not_write(area: str) -> None:
    files = files_of(area)
    assert files
    found = sorted(fault for file in files for fault in faults(file, area))
    assert not found, f"{len(found)} in {area}:\n" + "\n".join(found)


def test_a_planted_phrase_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    file = tmp_path / "agent" / "planted.py"
    file.parent.mkdir()
    file.write_text(
        '"""What a gateway is told."""\n# The keys cannot be had.\nHELP = "A tool of ours goes on."\n',
        encoding="utf-8",
    )
    assert {fault.split(": ", 1)[1].split(" (")[0] for fault in faults(file, "agent")} == {
        "'is told'",
        "begins with 'What'",
        "'be had'",
        "'of ours'",
        "'goes on'",
    }
