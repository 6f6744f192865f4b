"""File of bearer tokens: one JSON line per token, with its hash and never the token itself."""

from __future__ import annotations

import errno
import hashlib
import hmac
import json
import logging
import os
import secrets
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rule_server.errors import StartError
from rule_server.rulebook.files import write_atomic

log = logging.getLogger(__name__)

Scope = Literal["consult", "read", "admin"]
SCOPES: tuple[Scope, ...] = ("consult", "read", "admin")
TOKEN_PREFIX = "ascl_"  # noqa: S105 - a prefix, not a secret
MAX_FILE_BYTES = 1 << 20


class TokenEntry(BaseModel):
    """One line of the file."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")]
    """Name of the caller in the audit log and the access log."""
    scopes: Annotated[list[Scope], Field(min_length=1)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Hash of the token. The token has 256 random bits, so a slow hash would add no protection."""
    created: Annotated[str, Field(max_length=40)]


def hash_token(token: str) -> str:
    """Returns the SHA-256 of a token, 64 hex characters."""
    return hashlib.sha256(token.encode()).hexdigest()


def read_tokens(file: Path) -> list[TokenEntry]:
    """Reads the entries of a file. An incomplete last line, from an interrupted write, is left out.

    Raises:
        StartError: the file cannot be read, or a line is not a token entry.
    """
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise StartError(f"the token file {file} is larger than {MAX_FILE_BYTES >> 20} MiB: shorten it")
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
                f"line {number} of the token file {file} is not a token ({reason}): remove it, or write it "
                "with `ascl-rules token new`"
            ) from None
        if entry.name in entries:
            raise StartError(f"the token file {file} names {entry.name} twice: remove one of the lines")
        entries[entry.name] = entry
    return list(entries.values())


def new_token(file: Path, name: str, scopes: list[Scope], created: str) -> str:
    """Creates a token and appends its hash to the file. The token itself is returned and stored nowhere.

    Raises:
        StartError: the name is taken or malformed, or the file cannot be written.
    """
    token = TOKEN_PREFIX + secrets.token_urlsafe(32)
    try:
        entry = TokenEntry(name=name, scopes=scopes, sha256=hash_token(token), created=created)
    except ValidationError:
        raise StartError(
            f"{name[:80]!r} is not a valid token name: use up to 64 letters, digits and . _ @ -, and begin "
            "with a letter or digit"
        ) from None
    if file.exists() and any(entry.name == name for entry in read_tokens(file)):
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
        raise _not_writable(file, error) from None
    return token


def _drop_torn_line(handle: int) -> None:
    """Terminates the last line, or removes it when it is not a token because its write was interrupted."""
    text = os.pread(handle, os.fstat(handle).st_size, 0)
    last_line = text.rpartition(b"\n")[2]
    if not last_line:
        return
    try:
        TokenEntry.model_validate_json(last_line)
    except ValidationError:
        os.truncate(handle, len(text) - len(last_line))
    else:
        os.write(handle, b"\n")


def _not_writable(file: Path, error: OSError) -> StartError:
    return StartError(
        f"the token file {file} cannot be written ({error.strerror}): run this as its owner, or name another"
    )


def remove_token(file: Path, name: str) -> None:
    """Removes a token from the file, which is replaced atomically.

    Raises:
        StartError: no token has that name, or the file cannot be written.
    """
    entries = read_tokens(file)
    remaining = [entry for entry in entries if entry.name != name]
    if len(remaining) == len(entries):
        names = ", ".join(entry.name for entry in entries) or "none"
        raise StartError(f"{file} has no token named {name[:80]}: it has {names}")
    text = "".join(json.dumps(entry.model_dump()) + "\n" for entry in remaining)
    # The target of a link is replaced, since a service may know the file by another name.
    target = file.resolve()
    try:
        # The service must still be able to read the file, or it would keep accepting the removed token.
        write_atomic(target, text.encode(), attributes_of=target.stat())
    except OSError as error:
        raise _not_writable(file, error) from None


class TokenFile:
    """The tokens of a file, reloaded when it changes.

    An edit that cannot be read leaves the tokens unchanged and sets `error`.
    """

    def __init__(self, file: Path) -> None:
        """Raises StartError when the file cannot be used."""
        self.error: str | None = None
        """Reason why the last edit could not be read."""
        self._file = file
        self._last_stamp = self._stamp()
        self._by_hash = self._read()

    def find(self, token: str) -> TokenEntry | None:
        """Returns the entry of a token, or None. Its timing reveals nothing about the stored hashes."""
        if (stamp := self._stamp()) != self._last_stamp:
            self._last_stamp = stamp
            try:
                self._by_hash, self.error = self._read(), None
                log.info("read %d tokens of %s", len(self._by_hash), self._file)
            except StartError as error:
                self.error = str(error)
                log.warning("keeping the old tokens: %s", error)
        hashed = hash_token(token)
        entry = self._by_hash.get(hashed)
        return entry if entry is not None and hmac.compare_digest(entry.sha256, hashed) else None

    def _read(self) -> dict[str, TokenEntry]:
        return {entry.sha256: entry for entry in read_tokens(self._file)}

    def _stamp(self) -> tuple[int, int, int, int] | None:
        try:
            status = self._file.stat()
        except OSError:
            return None
        # ctime changes with owner and mode too: a file may become readable after its edit.
        return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino
