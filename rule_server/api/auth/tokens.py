"""Bearer tokens in a file: a JSON line a token, holding its hash and never the token itself."""

from __future__ import annotations

import errno
import hashlib
import hmac
import json
import logging
import os
import secrets
import stat
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rule_server.errors import StartError

log = logging.getLogger(__name__)

Scope = Literal["consult", "read", "admin"]
SCOPES: tuple[Scope, ...] = ("consult", "read", "admin")
PREFIX = "ascl_"
LONGEST_FILE = 1 << 20


class TokenEntry(BaseModel):
    """One line of the file."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")]
    """Whose token it is: what the audit log and the access log say."""
    scopes: Annotated[list[Scope], Field(min_length=1)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Of the token. It holds 256 random bits, so a slow hash would protect nothing more."""
    created: Annotated[str, Field(max_length=40)]


def hash_token(token: str) -> str:
    """SHA-256, 64 hex characters."""
    return hashlib.sha256(token.encode()).hexdigest()


def read_tokens(file: Path) -> list[TokenEntry]:
    """The entries of a file; a last line that was torn while it was written is left out.

    Raises:
        StartError: when the file cannot be read, or a line is no token.
    """
    try:
        if file.stat().st_size > LONGEST_FILE:
            raise StartError(f"the token file {file} is larger than {LONGEST_FILE >> 20} MiB: shorten it")
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(
            f"the token file {file} cannot be read ({error}): make it with `ascl-rules token new NAME`"
        ) from None
    entries: dict[str, TokenEntry] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = TokenEntry.model_validate_json(line)
        except ValidationError as error:
            if not line.endswith("\n"):
                break
            reason = error.errors()[0]["msg"]
            raise StartError(
                f"line {number} of the token file {file} is no token ({reason}): remove it, or write it with "
                "`ascl-rules token new`"
            ) from None
        if entry.name in entries:
            raise StartError(f"the token file {file} names {entry.name} twice: remove one of the lines")
        entries[entry.name] = entry
    return list(entries.values())


def new_token(file: Path, name: str, scopes: list[Scope], created: str) -> str:
    """Make a token and append its hash; the token is returned and kept nowhere.

    Raises:
        StartError: when the name is taken or malformed, or the file cannot be written.
    """
    token = PREFIX + secrets.token_urlsafe(32)
    try:
        entry = TokenEntry(name=name, scopes=scopes, sha256=hash_token(token), created=created)
    except ValidationError:
        raise StartError(
            f"{name[:80]!r} cannot name a token: use up to 64 letters, digits and . _ @ -, no sign first"
        ) from None
    if file.exists() and any(held.name == name for held in read_tokens(file)):
        raise StartError(f"{file} has a token named {name}: choose another name, or remove that one first")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            _drop_torn_line(handle)
            line = (entry.model_dump_json() + "\n").encode()
            if os.write(handle, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(handle)
    except OSError as error:
        raise unwritable(file, error) from None
    return token


def _drop_torn_line(handle: int) -> None:
    """End the last line; one that is no token was cut off while it was written, and would spoil the file."""
    text = os.pread(handle, os.fstat(handle).st_size, 0)
    begun = text.rpartition(b"\n")[2]
    if not begun:
        return
    try:
        TokenEntry.model_validate_json(begun)
    except ValidationError:
        os.truncate(handle, len(text) - len(begun))
    else:
        os.write(handle, b"\n")


def unwritable(file: Path, error: OSError) -> StartError:
    return StartError(
        f"the token file {file} cannot be written ({error.strerror}): do it as its owner, or name another"
    )


def remove_token(file: Path, name: str) -> None:
    """Take a token out of the file, which is replaced whole.

    Raises:
        StartError: when there is none of that name, or the file cannot be written.
    """
    entries = read_tokens(file)
    kept = [entry for entry in entries if entry.name != name]
    if len(kept) == len(entries):
        named = ", ".join(entry.name for entry in entries) or "none"
        raise StartError(f"{file} has no token named {name[:80]}: it has {named}")
    # Of a link the target is replaced: a service that knows the file by another name must see it too.
    target = file.resolve()
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        before = target.stat()
        handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.writelines(json.dumps(entry.model_dump()) + "\n" for entry in kept)
            # Whoever serves must be able to read it as before, or it would go on with the tokens it knows.
            os.fchmod(handle, stat.S_IMODE(before.st_mode))
            made = os.fstat(handle)
            if (before.st_uid, before.st_gid) != (made.st_uid, made.st_gid):
                os.fchown(handle, before.st_uid, before.st_gid)
        aside.replace(target)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise unwritable(file, error) from None


class TokenFile:
    """The tokens of a file, read again whenever it changes.

    An edit that cannot be read leaves the tokens as they were, and its reason in `problem`.
    """

    def __init__(self, file: Path) -> None:
        """Raises StartError when the file cannot be used."""
        self.problem: str | None = None
        self._file = file
        self._seen = self._stamp()
        self._by_hash = self._read()

    def find(self, token: str) -> TokenEntry | None:
        """Whose token this is, if anybody's; how long it takes tells nothing about the hashes kept."""
        if (stamp := self._stamp()) != self._seen:
            self._seen = stamp
            try:
                self._by_hash, self.problem = self._read(), None
                log.info("read %d tokens of %s", len(self._by_hash), self._file)
            except StartError as error:
                self.problem = str(error)
                log.warning("the tokens stay as they were: %s", error)
        hashed = hash_token(token)
        entry = self._by_hash.get(hashed)
        return entry if entry is not None and hmac.compare_digest(entry.sha256, hashed) else None

    def _read(self) -> dict[str, TokenEntry]:
        return {entry.sha256: entry for entry in read_tokens(self._file)}

    def _stamp(self) -> tuple[int, int, int, int] | None:
        try:
            stat = self._file.stat()
        except OSError:
            return None
        # The second changes with the owner and the mode too: a file may be made readable after its edit.
        return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino
