"""Fuzzes the rule loader: it must quickly return a rulebook or problems and read only files of its folder.

    make fuzz                                       two minutes
    python tests/fuzz/fuzz_rule_files.py -timeout=5 -len_control=0 -max_total_time=600 CORPUS

libFuzzer (through atheris) mutates the bytes by code coverage. Each input becomes a rules folder with a
mutated rule, category, manifest or file name, or with a link out of the folder. Four invariants hold: the
loader raises nothing, every problem is one printable line, no file outside the folder is opened, and no input
takes longer than five seconds (-timeout=5).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["rule_server", "yaml"]):
    from rule_server.rulebook import read_folders
    from rule_server.settings import packaged_rules

RULE = """---
id: cyber.x
title: A title
stance: answer
applies_when: Someone asks.
owner: team
review_by: 2099-01-01
queries: [a, b, c, d, e]
examples: {benign: [x]}
status: active
---
## Fine
x
## Not fine
y
## How to answer
z
"""
CATEGORY = """---
id: cyber
title: Cyber
summary: About cyber.
mlcommons: []
severity: high
reviewed: 2026-01-01
---
"""
MANIFEST = "name: fuzz\nversion: 1.0.0\n"
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1", "cp500", "utf-7", "shift_jis"]

_root = Path(tempfile.mkdtemp(prefix="fuzz-rules-"))
_outside = _root / "outside"
_allowed = (_root / "rules", packaged_rules())  # `extends: ascl-core` reads our rulebook
_watching = False
_escaped: list[str] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    """Audit hook: Python reports every file before it opens it and every folder before it lists it."""
    if not _watching or event not in ("open", "os.listdir", "os.scandir"):
        return
    if not isinstance(arguments[0], str | bytes | Path):
        return  # an open file descriptor
    path = Path(os.fsdecode(arguments[0]))
    follows_links = event != "open" or not arguments[2] & os.O_NOFOLLOW
    real = path.resolve() if follows_links else path.parent.resolve() / path.name
    if not any(real.is_relative_to(folder) for folder in _allowed) and real.suffix not in (".py", ".pyc"):
        _escaped.append(str(path))


def write_folder(data: atheris.FuzzedDataProvider) -> Path:
    """Writes a rules folder from the input, mostly valid so that mutations get past the first check."""
    folder = _root / "rules"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "cyber").mkdir(parents=True)
    texts = {"cyber/_category.md": CATEGORY, "rulebook.yaml": MANIFEST, "cyber/x.md": RULE}
    target = data.PickValueInList(sorted(texts))
    mutation = data.ConsumeIntInRange(0, 6)
    raw = texts[target].encode()
    if mutation == 0:
        raw = data.ConsumeBytes(data.remaining_bytes())
    elif mutation == 1:
        at = data.ConsumeIntInRange(0, len(raw))
        raw = raw[:at] + data.ConsumeBytes(data.remaining_bytes()) + raw[at + data.ConsumeIntInRange(0, 40) :]
    elif mutation == 2:
        lines = texts[target].splitlines(keepends=True)
        lines[data.ConsumeIntInRange(0, len(lines) - 1)] = data.ConsumeUnicodeNoSurrogates(2000) + "\n"
        raw = "".join(lines).encode()
    elif mutation == 3:
        with contextlib.suppress(UnicodeEncodeError):
            raw = (texts[target] + data.ConsumeUnicodeNoSurrogates(200)).encode(
                data.PickValueInList(ENCODINGS)
            )
    elif mutation == 4:  # a repeated piece: depth, length, repeated keys and anchors
        piece = data.ConsumeUnicodeNoSurrogates(12) or "- "
        repeated = (piece * data.ConsumeIntInRange(1, 40_000))[:80_000]
        raw = f"---\na: {repeated}\n---\n".encode()
    elif mutation == 5:
        (folder / target).unlink(missing_ok=True)
        link = folder / data.PickValueInList([target, "cyber/link.md", "linked"])
        link.symlink_to(data.PickValueInList([_outside, _outside / "secret.md", Path("/dev/zero"), link]))
    elif mutation == 6:
        name = data.ConsumeUnicodeNoSurrogates(40).replace("/", "").replace("\0", "")
        with contextlib.suppress(OSError):
            (folder / "cyber" / (name + data.PickValueInList([".md", ".de.md", ""]))).write_bytes(raw)
    for path, text in texts.items():
        if not (folder / path).is_symlink():
            (folder / path).write_bytes(raw if path == target else text.encode())
    return folder


def one_input(raw: bytes) -> None:
    """Loads one input. libFuzzer calls it."""
    global _watching
    folder = write_folder(atheris.FuzzedDataProvider(raw))
    _watching = True
    try:
        reading = read_folders(folder)
    finally:
        _watching = False
    assert (reading.rulebook is None) == bool(reading.problems)
    assert reading.rulebook is None or len(reading.rulebook.digest) == 64
    for problem in reading.problems:
        assert str(problem).isprintable(), ascii(str(problem))
        assert len(str(problem)) < 1500
    assert not _escaped, f"opened outside of the folder: {_escaped}"


def seed(corpus: Path) -> None:
    """Seeds the corpus with valid files and one input per mutation. atheris reads numbers from the end."""
    texts = (CATEGORY, RULE, MANIFEST)
    seeds = [text.encode() + bytes([0, target]) for target, text in enumerate(texts)]
    seeds.append(MANIFEST.encode() + b"extends: ascl-core\nretire: [cyber.x]\n" + bytes([0, 2]))
    seeds += [b"a: [b, {c: 'd'}]\n" * 3 + bytes([7, 9, mutation, 1]) for mutation in range(1, 7)]
    for number, content in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(content)


def main() -> None:
    for corpus in filter(os.path.isdir, sys.argv[1:]):
        seed(Path(corpus))
    _outside.mkdir()
    (_outside / "secret.md").write_text(RULE, encoding="utf-8")
    sys.addaudithook(_audit)
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
