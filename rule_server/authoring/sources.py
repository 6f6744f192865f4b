"""Opens a rulebook by a folder, the digest of a stored rulebook, or a git revision."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rule_server.authoring.expectations import ExpectationsRead, read_expectations
from rule_server.errors import ArtefactError, RulebookError
from rule_server.retrieval.artefact import Artefact
from rule_server.retrieval.versions import MIN_PREFIX_CHARS, find_version, list_versions, load_version
from rule_server.rulebook import (
    MAX_FILE_BYTES,
    MAX_RULEBOOK_BYTES,
    MAX_RULES,
    Rulebook,
    is_ignored,
    load_rulebook,
)

GIT_SECONDS = 60
_DIGEST = re.compile(rf"[0-9a-fA-F]{{{MIN_PREFIX_CHARS},64}}")
_REGULAR = {"100644", "100755"}


@dataclass(frozen=True)
class Source:
    """A rulebook and its source."""

    spec: str
    kind: str
    """`folder`, `digest` or `git`."""
    rulebook: Rulebook
    expected: ExpectationsRead
    """Its expected results. A stored rulebook has none."""


def open_source(
    spec: str, artefact: Artefact, rules: Path, variables: Mapping[str, str] | None = None
) -> Source:
    """Opens the rulebook that `spec` names.

    It is tried as a folder, then as a digest of the artefact or its first characters, then as a git revision:
    `HEAD~1` of the folder `rules`, `HEAD~1:path` of that folder in the repository of the working directory.

    Raises:
        RulebookError: `spec` is none of these, or that rulebook is invalid.
        ArtefactError: the artefact is damaged.
    """
    if spec and Path(spec).is_dir():
        return _from_folder(spec, "folder", Path(spec), variables)
    if _DIGEST.fullmatch(spec):
        if any(version.digest.startswith(spec.lower()) for version in list_versions(artefact)):
            digest = find_version(artefact, spec).digest
            return Source(spec, "digest", load_version(artefact, digest), ExpectationsRead([], []))
        if len(spec) == 64:
            raise ArtefactError(
                f"{artefact.folder} keeps no rulebook {spec[:12]}: build it again, or name a folder"
            )
    return _from_git(spec, artefact, rules, variables)


def _from_folder(spec: str, kind: str, folder: Path, variables: Mapping[str, str] | None) -> Source:
    return Source(spec, kind, load_rulebook(folder, variables), read_expectations(folder))


def _from_git(spec: str, artefact: Artefact, rules: Path, variables: Mapping[str, str] | None) -> Source:
    revision, colon, _ = spec.partition(":")
    if not revision or spec.startswith("-") or "\0" in spec:
        raise RulebookError(f"{spec!r} names no rulebook: write a folder, a digest or a git revision")
    at, name = (Path.cwd(), spec) if colon else (rules, f"{spec}:./")
    neither = f"{spec} is neither a folder nor a digest that {artefact.folder} keeps"
    if not at.is_dir():
        raise RulebookError(f"{neither}, and {at} is not a folder in which to look up a git revision")
    if _git(at, "rev-parse", "--show-prefix") is None:
        raise RulebookError(f"{neither}, and {at} is not in a git repository; write {spec}:rules inside one")
    if _git(at, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}") is None:
        raise RulebookError(f"{neither}, nor a revision of the git repository of {at}: correct its name")
    tree = _git(at, "rev-parse", "--verify", "--quiet", "--end-of-options", name)
    listing = (
        None if tree is None else _git(at, "ls-tree", "-r", "-z", "-l", "--full-tree", tree.decode().strip())
    )
    if listing is None:
        raise RulebookError(
            f"the revision {revision} has no folder {name.partition(':')[2] if colon else at}: "
            f"name the rules folder, as in {revision}:rules"
        )
    with tempfile.TemporaryDirectory(prefix="ascl-rules-") as temporary:
        folder = Path(temporary, re.sub(r"[^\w.~^-]+", "-", spec)[:80].strip("."))
        _unpack(at, listing, folder, spec)
        return _from_folder(spec, "git", folder, variables)


def _unpack(at: Path, listing: bytes, folder: Path, spec: str) -> None:
    """Writes the files of a tree listed by `git ls-tree -r -z -l` that can belong to a rules folder."""
    files: list[tuple[str, Path]] = []
    total = 0
    for line in filter(None, listing.split(b"\0")):
        head, _, name = line.partition(b"\t")
        mode, _, blob, size = head.decode().split()
        path = Path(os.fsdecode(name))
        if len(path.parts) > 2 or path.is_absolute() or ".." in path.parts:
            continue  # deeper files do not belong to a rulebook
        if any(map(is_ignored, path.parts)):
            continue
        if mode not in _REGULAR:
            raise RulebookError(f"{spec}: {path} is a link; compare revisions that contain only files")
        total += int(size)
        if int(size) > MAX_FILE_BYTES or total > MAX_RULEBOOK_BYTES or len(files) > 2 * MAX_RULES:
            raise RulebookError(f"{spec}: {path} makes it larger than a rulebook may be")
        files.append((blob, path))
    folder.mkdir()
    contents = _git(at, "cat-file", "--batch", feed="".join(f"{blob}\n" for blob, _ in files).encode())
    if contents is None:
        raise RulebookError(f"{spec}: git cannot read the files of this revision; run `git fsck`")
    for _, path in files:
        header, _, contents = contents.partition(b"\n")
        length = int(header.split()[2])
        target = folder / path
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(contents[:length])
        contents = contents[length + 1 :]


def _git(at: Path, *arguments: str, feed: bytes | None = None) -> bytes | None:
    """Returns the output of git, or None when it fails. Ignores GIT_DIR and GIT_WORK_TREE, which hooks set.

    Raises:
        RulebookError: git is not installed, or takes too long.
    """
    env = {name: value for name, value in os.environ.items() if name not in ("GIT_DIR", "GIT_WORK_TREE")}
    try:
        result = subprocess.run(
            ["git", "-C", str(at), *arguments],
            input=feed,
            stdin=subprocess.DEVNULL if feed is None else None,
            capture_output=True,
            timeout=GIT_SECONDS,
            check=False,
            env=env,
        )
    except FileNotFoundError:
        raise RulebookError("git is not installed, so revisions cannot be looked up: name a folder") from None
    except subprocess.TimeoutExpired:
        raise RulebookError(f"git took more than {GIT_SECONDS} s: name a folder instead") from None
    if b"dubious ownership" in result.stderr:
        raise RulebookError(
            f"git does not trust {at}, which another user owns: "
            "run `git config --global --add safe.directory DIR`"
        )
    return result.stdout if result.returncode == 0 else None
